// SPDX-License-Identifier: MIT
/*
 * A request enters: the FETCH (or COMMIT_AND_FETCH) of a tag completed, its io descriptor says
 * what the kernel wants.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "datapath.h"
#include "ublk_front.h"

int gk_ublk_queue_map(struct gk_ublk_queue *uq, int cdev_fd, unsigned int q_id, unsigned int depth)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t bytes = (depth * sizeof(struct ublksrv_io_desc) + page - 1) / page * page;
	off_t offset = UBLKSRV_CMD_BUF_OFFSET +
		       (off_t)(q_id * UBLK_MAX_QUEUE_DEPTH * sizeof(struct ublksrv_io_desc));
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, cdev_fd, offset);

	if (map == MAP_FAILED)
		return -errno;
	*uq = (struct gk_ublk_queue){.cdev_fd = cdev_fd, .iods = map, .iods_bytes = bytes};
	return 0;
}

void gk_ublk_queue_unmap(struct gk_ublk_queue *uq)
{
	if (uq->iods)
		munmap((void *)uq->iods, uq->iods_bytes);
	*uq = (struct gk_ublk_queue){.cdev_fd = -1};
}

/* What a descriptor asks for, in terms of the wire. 0 or -errno: the request is then failed. */
static int decode(const struct gk_queue *queue, const struct ublksrv_io_desc *iod,
		  uint16_t *ret_type, uint16_t *ret_flags)
{
	uint16_t flags = iod->op_flags & UBLK_IO_F_FUA ? NBD_CMD_FLAG_FUA : 0;

	switch (iod->op_flags & 0xff) {
	case UBLK_IO_OP_READ:
		*ret_type = NBD_CMD_READ;
		flags = 0;
		break;
	case UBLK_IO_OP_WRITE:
		*ret_type = NBD_CMD_WRITE;
		break;
	case UBLK_IO_OP_FLUSH:
		*ret_type = NBD_CMD_FLUSH;
		*ret_flags = 0;
		return 0;
	case UBLK_IO_OP_DISCARD:
		*ret_type = NBD_CMD_TRIM;
		break;
	case UBLK_IO_OP_WRITE_ZEROES:
		*ret_type = NBD_CMD_WRITE_ZEROES;
		if (iod->op_flags & UBLK_IO_F_NOUNMAP)
			flags |= NBD_CMD_FLAG_NO_HOLE;
		break;
	default:
		return -EOPNOTSUPP;
	}
	*ret_flags = flags;
	if (!iod->nr_sectors || iod->nr_sectors > INT32_MAX >> 9)
		return -EINVAL;
	if ((*ret_type == NBD_CMD_READ || *ret_type == NBD_CMD_WRITE) &&
	    iod->nr_sectors << 9 > queue->max_io_bytes)
		return -EINVAL;
	return 0;
}

void gk_ublk_fetch(struct gk_queue *queue, uint16_t tag_id, int res)
{
	const struct gk_ublk_queue *uq = queue->front_data;
	const struct ublksrv_io_desc *iod = &uq->iods[tag_id];
	struct gk_tag *tag = &queue->tags[tag_id];
	uint16_t type = 0;
	uint16_t flags = 0;
	uint32_t len;
	int r;

	/* io_uring failed it before the driver saw it (Linux io_uring/uring_cmd.c, allocations of prep). */
	if (res == -ENOMEM || res == -EAGAIN) {
		gk_ublk_repeat(queue, tag);
		return;
	}
	if (res != UBLK_IO_RES_OK) {
		/* ABORT is how a device that is being stopped hands its tags back, one by one. */
		if (res != UBLK_IO_RES_ABORT)
			GK_LOG_LIMITED(&queue->error_log, GK_LOG_ERROR,
				       "dev%d q%u t%u: ublk refused the tag: %s", queue->dev_id,
				       queue->id, tag_id, gk_strerror(res));
		queue->front_live--;
		return;
	}
	r = decode(queue, iod, &type, &flags);
	len = type == NBD_CMD_FLUSH ? 0 : iod->nr_sectors << 9;
	if (r) {
		gk_ublk_commit(queue, tag, r);
		return;
	}
	gk_tag_begin(queue, tag, type, flags, iod->start_sector << 9, len);
	if (iod->op_flags & UBLK_IO_F_NEED_REG_BUF) {
		tag->no_kernel_buffer = true;
		gk_count(&queue->counters.fallbacks, tag->direct);
	}
	/* Only the copy path finds the payload in the tag's buffer already. */
	if (queue->path->kernel_buffers && type == NBD_CMD_WRITE && !tag->direct) {
		r = queue->path->copy_in(queue, tag, tag->buf, 0, len);
		if (r) {
			gk_tag_end(queue, tag, r);
			return;
		}
	}
	gk_queue_submit(queue, tag);
}
