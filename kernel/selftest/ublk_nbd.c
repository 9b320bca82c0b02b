// SPDX-License-Identifier: GPL-2.0
/*
 * A small NBD client on ublk, as the proxy is one: two connections, 64 tags. A write goes out as
 * the chain header -> {PROVIDE, SEND}, a read's data comes in as {PROVIDE, RECV} -> next header.
 * When the server dies every request of its connections that has no reply is sent again.
 */
#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd_pair.h"
#include "nbd_wire.h"
#include "net.h"
#include "tap.h"
#include "ublk.h"

#define DEVICE_BYTES (32u << 20)
#define DEPTH	     64
#define CONNECTIONS  2
#define CHAIN	     8 /* requests of one send chain */

/* The kinds of completions beside COMMIT's: user_data is kind, connection, tag. */
enum kind {
	SEND_HEADER = 1,
	SEND_PROVIDE,
	SEND_DATA,
	RECV_HEADER,
	RECV_PROVIDE,
	RECV_DATA,
};

enum step { FREE, QUEUED, SENT, ANSWERED };

struct request {
	enum step step;
	unsigned int owed; /* completions still to come for this tag */
	uint32_t generation;
	struct nbd_request header;
};

struct connection {
	int fd;
	bool failed;
	unsigned int owed;
	uint16_t queue[DEPTH];
	unsigned int head, tail; /* of the queue; tags to be sent */
	unsigned int chain;	 /* completions still to come of the send chain */
	struct nbd_simple_reply reply;
};

struct client {
	struct nbd_memory *memory;
	struct connection connections[CONNECTIONS];
	struct request requests[DEPTH];
};

static uint64_t key(enum kind kind, unsigned int connection, unsigned int tag)
{
	return (uint64_t)(kind << 4 | connection) << 16 | tag;
}

static void count(struct client *client, unsigned int c, unsigned int tag)
{
	client->connections[c].owed++;
	if (tag < DEPTH)
		client->requests[tag].owed++;
}

static void receive_header(struct ublk_server *server, unsigned int c)
{
	struct client *client = server->priv;
	struct connection *connection = &client->connections[c];

	ring_msg(&server->ring, IORING_OP_RECV, key(RECV_HEADER, c, DEPTH), 0, connection->fd,
		 (uintptr_t)&connection->reply, sizeof(connection->reply), MSG_WAITALL);
	count(client, c, DEPTH);
}

static void send_one(struct ublk_server *server, unsigned int c, unsigned int tag, bool last)
{
	struct client *client = server->priv;
	struct request *request = &client->requests[tag];
	struct connection *connection = &client->connections[c];
	bool data = be16toh(request->header.type) == NBD_CMD_WRITE;
	uint8_t link = last ? 0 : LINK;
	struct io_uring_sqe *provide;

	request->step = SENT;
	ring_msg(&server->ring, IORING_OP_SEND, key(SEND_HEADER, c, tag), data ? LINK : link,
		 connection->fd, (uintptr_t)&request->header, sizeof(request->header),
		 MSG_WAITALL | MSG_NOSIGNAL | (data ? MSG_MORE : 0));
	count(client, c, tag);
	connection->chain++;
	if (!data)
		return;
	provide = ublk_server_provide(server, tag);
	provide->user_data = key(SEND_PROVIDE, c, tag);
	provide->flags |= link;
	ring_msg(&server->ring, IORING_OP_SEND, key(SEND_DATA, c, tag), KBUF, connection->fd, 0,
		 be32toh(request->header.length), MSG_WAITALL | MSG_NOSIGNAL);
	count(client, c, tag);
	count(client, c, tag);
	connection->chain += 2;
}

/* One chain at a time, so that nothing overtakes on the stream. */
static void send_queued(struct ublk_server *server, unsigned int c)
{
	struct client *client = server->priv;
	struct connection *connection = &client->connections[c];
	unsigned int left = connection->tail - connection->head;

	if (connection->failed || connection->chain > 0)
		return;
	left = left > CHAIN ? CHAIN : left;
	while (left > 0) {
		unsigned int tag = connection->queue[connection->head++ % DEPTH];

		left--;
		send_one(server, c, tag, left == 0);
	}
}

static void queue(struct client *client, unsigned int tag)
{
	struct connection *connection = &client->connections[tag % CONNECTIONS];
	struct request *request = &client->requests[tag];

	request->step = QUEUED;
	request->header.cookie = (uint64_t)request->generation << 32 | tag;
	connection->queue[connection->tail++ % DEPTH] = (uint16_t)tag;
}

static void new_request(struct ublk_server *server, unsigned int tag)
{
	struct client *client = server->priv;
	const struct ublksrv_io_desc *iod = &server->iods[tag];
	struct request *request = &client->requests[tag];
	uint16_t type;

	switch ((uint8_t)iod->op_flags) {
	case UBLK_IO_OP_READ:
		type = NBD_CMD_READ;
		break;
	case UBLK_IO_OP_WRITE:
		type = NBD_CMD_WRITE;
		break;
	case UBLK_IO_OP_FLUSH:
		type = NBD_CMD_FLUSH;
		break;
	default:
		ublk_server_commit(server, tag, -EOPNOTSUPP);
		return;
	}
	CHECK(request->step == FREE && request->owed == 0);
	request->generation++;
	request->header = (struct nbd_request){
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.type = htobe16(type),
		.offset = htobe64(iod->start_sector << 9),
		.length = htobe32(iod->nr_sectors << 9),
	};
	queue(client, tag);
	send_queued(server, tag % CONNECTIONS);
}

static void fail(struct connection *connection)
{
	connection->failed = true;
	shutdown(connection->fd, SHUT_RDWR);
}

/* Everything that was under way on it has ended: connect again and send again. */
static void reconnect(struct ublk_server *server, unsigned int c)
{
	struct client *client = server->priv;
	struct connection *connection = &client->connections[c];

	close(connection->fd);
	connection->fd = nbd_connect(client->memory);
	connection->failed = false;
	CHECK_EQ(connection->chain, 0);
	connection->head = 0;
	connection->tail = 0;
	for (unsigned int tag = c; tag < DEPTH; tag += CONNECTIONS) {
		struct request *request = &client->requests[tag];

		CHECK_EQ(request->owed, 0);
		if (request->step == FREE)
			continue;
		/* A late reply to the old generation could only come on the old connection. */
		request->generation++;
		queue(client, tag);
	}
	receive_header(server, c);
	send_queued(server, c);
}

static void finish_if_done(struct ublk_server *server, unsigned int tag)
{
	struct client *client = server->priv;
	struct request *request = &client->requests[tag];

	if (request->step != ANSWERED || request->owed > 0)
		return;
	request->step = FREE;
	ublk_server_commit(server, tag, (int)be32toh(request->header.length));
}

static void header_received(struct ublk_server *server, unsigned int c)
{
	struct client *client = server->priv;
	struct connection *connection = &client->connections[c];
	unsigned int tag = (uint32_t)connection->reply.cookie;
	struct io_uring_sqe *provide;
	struct request *request;

	CHECK_EQ(be32toh(connection->reply.magic), NBD_SIMPLE_REPLY_MAGIC);
	CHECK_EQ(connection->reply.error, 0);
	CHECK(tag < DEPTH && tag % CONNECTIONS == c);
	request = &client->requests[tag];
	CHECK_EQ(request->step, SENT);
	CHECK_EQ(connection->reply.cookie, request->header.cookie);
	if (be16toh(request->header.type) != NBD_CMD_READ) {
		request->step = ANSWERED;
		receive_header(server, c);
		finish_if_done(server, tag);
		return;
	}
	provide = ublk_server_provide(server, tag);
	provide->user_data = key(RECV_PROVIDE, c, tag);
	provide->flags |= LINK;
	ring_msg(&server->ring, IORING_OP_RECV, key(RECV_DATA, c, tag), KBUF, connection->fd, 0,
		 be32toh(request->header.length), MSG_WAITALL);
	count(client, c, tag);
	count(client, c, tag);
	receive_header(server, c);
}

static void step_completed(struct ublk_server *server, const struct ring_cqe *cqe)
{
	struct client *client = server->priv;
	unsigned int tag = (uint16_t)cqe->user_data, c = (cqe->user_data >> 16) & 15;
	enum kind kind = (enum kind)(cqe->user_data >> 20);
	struct connection *connection = &client->connections[c];
	struct request *request = tag < DEPTH ? &client->requests[tag] : NULL;
	int wanted = 0;

	connection->owed--;
	if (request) {
		request->owed--;
		wanted = (int)be32toh(request->header.length);
	}
	if (kind == SEND_HEADER)
		wanted = sizeof(struct nbd_request);
	if (kind == RECV_HEADER)
		wanted = sizeof(struct nbd_simple_reply);
	if (kind <= SEND_DATA)
		connection->chain--;
	/* A PROVIDE fails only as part of a chain that was broken by the network. */
	if (kind == SEND_PROVIDE || kind == RECV_PROVIDE)
		CHECK(cqe->res == wanted || cqe->res == -ECANCELED);
	if (cqe->res != wanted)
		fail(connection);
	else if (kind == RECV_HEADER && !connection->failed)
		header_received(server, c);
	else if (kind == RECV_DATA)
		request->step = ANSWERED;
	if (request)
		finish_if_done(server, tag);
	send_queued(server, c);
	if (connection->failed && connection->owed == 0)
		reconnect(server, c);
}

static void client_run(struct ublk_dev *dev, void *arg)
{
	struct client client = {.memory = arg};
	struct ublk_server server = {
		.request = new_request,
		.completed = step_completed,
		.priv = &client,
	};

	ublk_server_open(&server, dev, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	for (unsigned int c = 0; c < CONNECTIONS; c++) {
		client.connections[c].fd = nbd_connect(client.memory);
		receive_header(&server, c);
	}
	ublk_server_run(&server);
}

static void wait_served(const struct nbd_memory *memory, uint32_t more, pid_t busy)
{
	uint32_t target = memory->served + more;

	while (memory->served < target) {
		/* The load ends before it came so far: the test is too small. */
		CHECK_EQ(kill(busy, 0), 0);
		usleep(1000);
	}
}

static pid_t verifying_load(const struct ublk_dev *dev)
{
	pid_t load = (pid_t)CHECK_SYS(fork());
	char name[64];

	if (load > 0)
		return load;
	snprintf(name, sizeof(name), "--filename=/dev/ublkb%d", dev->id);
	/* One block size per region: fio cannot verify blocks that overlap. */
	execlp("fio", "fio", "--output-format=terse", "--output=/dev/null", name, "--rw=randrw",
	       "--direct=1", "--ioengine=libaio", "--iodepth=32", "--verify=crc32c",
	       "--verify_fatal=1", "--verify_state_save=0", "--randseed=11", "--name=small",
	       "--bs=4k", "--size=4M", "--name=odd", "--bs=69632", "--offset=8M", "--size=8704k",
	       "--name=large", "--bs=256k", "--offset=20M", "--size=12M", (char *)NULL);
	FAIL("no fio");
}

static void end_to_end(unsigned int restarts)
{
	struct nbd_memory *memory = nbd_memory_new(DEVICE_BYTES);
	struct ublk_dev dev;
	pid_t nbd, server, load;

	ublk_require();
	nbd = nbd_server_start(memory);
	ublk_add(&dev, UBLK_FLAGS, DEPTH, DEVICE_BYTES);
	server = ublk_start(&dev, client_run, memory);
	load = verifying_load(&dev);
	for (unsigned int i = 0; i < restarts; i++) {
		wait_served(memory, 100, load);
		nbd_server_kill(nbd);
		nbd = nbd_server_start(memory);
	}
	peer_join(load);
	tap_note("%u requests served", memory->served);
	ublk_remove(&dev);
	peer_join(server);
	nbd_server_kill(nbd);
}

static void stream_never_desyncs(void)
{
	end_to_end(0);
}

static void server_restarts(void)
{
	end_to_end(3);
}

int main(int argc, char **argv)
{
	static const struct tap_test tests[] = {
		{"39: NBD over two connections, verified", stream_never_desyncs, 600},
		{"39: NBD with a server that is killed three times, verified", server_restarts,
		 600},
		TAP_END,
	};

	return tap_main(argc, argv, tests);
}
