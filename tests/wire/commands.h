/* SPDX-License-Identifier: MIT */
/*
 * Six requests of different kinds for tests in which connections are lost, and what the server at
 * the other end of one makes of them. Each function fails the running test when something is not
 * as it says.
 */
#ifndef GK_COMMANDS_H
#define GK_COMMANDS_H

#include "wire_rig.h"

#define LEN  8192
#define MS   UINT64_C(1000000)
#define HOUR (3600000 * MS)

struct command {
	uint16_t tag;
	uint16_t type;
	uint16_t flags;
	uint64_t offset;
	uint32_t len;
};

/* As they enter: the order of the tags says nothing. */
static const struct command commands[] = {
	{5, NBD_CMD_WRITE, 0, 0, LEN},
	{2, NBD_CMD_READ, 0, 65536, LEN},
	{7, NBD_CMD_TRIM, 0, 131072, 4096},
	{0, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 262144, 512},
	{3, NBD_CMD_FLUSH, 0, 0, 0},
	{6, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 524288, 4096},
};

#define N (sizeof(commands) / sizeof(commands[0]))

/* Payload in the tag's buffer and in pages of the request's own. */
static const struct rig_options all_paths[] = {
	{.retry = {.replay = true}},
	{.retry = {.replay = true}, .path = &mem_path_single, .threshold_bytes = 4096},
	{.retry = {.replay = true}, .path = &mem_path_paired, .threshold_bytes = 4096},
	{.retry = {.replay = true}, .structured = true},
};

#define PATHS (sizeof(all_paths) / sizeof(all_paths[0]))

static inline void submit(struct rig *rig, const struct command *command)
{
	uint8_t *data = mem_front_data(&rig->queue, command->tag);

	if (command->type == NBD_CMD_WRITE)
		rig_pattern(data, command->offset, command->len, command->tag);
	mem_front_submit(&rig->queue, command->tag, command->type, command->flags, command->offset,
			 command->len);
}

/* The server finds the request on the wire, with the payload that belongs to it. */
static inline struct fake_request take(struct rig *rig, unsigned int session,
				       const struct command *command)
{
	struct fake_request request;

	assert_true(fake_take(rig->peer[session], &request));
	assert_int_equal(request.type, command->type);
	assert_int_equal(request.flags, command->flags);
	assert_int_equal(request.offset, command->offset);
	assert_int_equal(request.length, command->len);
	if (command->type == NBD_CMD_WRITE) {
		uint8_t got[LEN];
		uint8_t expected[LEN];

		rig_pattern(expected, command->offset, command->len, command->tag);
		assert_true(fake_take_bytes(rig->peer[session], got, command->len));
		assert_memory_equal(got, expected, command->len);
	}
	return request;
}

static inline void answer(struct rig *rig, unsigned int session, const struct fake_request *request,
			  unsigned int salt)
{
	uint8_t content[LEN];

	rig_pattern(content, request->offset, LEN, salt);
	rig_answer(rig, session, request, content);
}

/* The request ended well, and once. */
static inline void assert_ended(struct rig *rig, const struct command *command, unsigned int salt)
{
	uint8_t content[LEN];

	assert_int_equal(rig_result(rig, command->tag), command->len);
	assert_int_equal(rig->front.slots[command->tag].commits, 1);
	rig_pattern(content, command->offset, LEN, salt);
	if (command->type == NBD_CMD_READ)
		assert_memory_equal(mem_front_data(&rig->queue, command->tag), content,
				    command->len);
}

#endif
