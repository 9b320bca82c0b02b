// SPDX-License-Identifier: MIT
/* The server answers in an order of its own: what counts is the cookie. */
#include <errno.h>
#include <string.h>

#include "wire_rig.h"

#define BLOCK 4096

static uint8_t disk[512 * BLOCK];

static void two_replies_change_places(void **state)
{
	struct rig rig;
	struct fake_request request[2];
	struct fake_bytes reply = {0};
	uint8_t content[2][512];

	(void)state;
	rig_begin(&rig, &(struct rig_options){0});
	for (uint16_t i = 0; i < 2; i++) {
		request[i] = rig_request(&rig, 0, i, NBD_CMD_READ, i * 512, 512);
		rig_pattern(content[i], i * 512, 512, 0);
	}
	fake_put_simple(&reply, request[1].cookie, 0);
	fake_put(&reply, content[1], 512);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 1), 512);
	assert_true(rig.front.slots[0].busy);
	fake_bytes_done(&reply);
	fake_put_simple(&reply, request[0].cookie, 0);
	fake_put(&reply, content[0], 512);
	rig_say(&rig, 0, &reply);
	assert_int_equal(rig_result(&rig, 0), 512);
	for (unsigned int i = 0; i < 2; i++)
		assert_memory_equal(rig.queue.tags[i].buf, content[i], 512);
	fake_bytes_done(&reply);
	rig_end(&rig);
}

static void chunks_of_two_reads_are_interleaved(void **state)
{
	struct rig rig;
	struct fake_request request[2];
	struct fake_bytes reply = {0};
	uint8_t content[2][1024];

	(void)state;
	rig_begin(&rig, &(struct rig_options){.structured = true});
	for (uint16_t i = 0; i < 2; i++) {
		request[i] = rig_request(&rig, 0, i, NBD_CMD_READ, i * 1024, 1024);
		rig_pattern(content[i], i * 1024, 1024, 0);
	}
	fake_put_data(&reply, 0, request[0].cookie, 512, content[0] + 512, 512);
	fake_put_data(&reply, 0, request[1].cookie, 1024, content[1], 512);
	fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request[0].cookie, 0, content[0], 512);
	fake_put_data(&reply, NBD_REPLY_FLAG_DONE, request[1].cookie, 1536, content[1] + 512, 512);
	rig_say(&rig, 0, &reply);
	rig_run(&rig);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(rig.front.slots[i].result, 1024);
		assert_memory_equal(rig.queue.tags[i].buf, content[i], 1024);
	}
	fake_bytes_done(&reply);
	rig_end(&rig);
}

/* Depth 128, all in flight at once, READs and WRITEs mixed, over as many sessions as given. */
static void shuffle(unsigned int sessions, bool structured, uint32_t chunk_bytes)
{
	struct rig rig;
	struct fake_disk_server servers[RIG_SESSIONS];
	unsigned int overtaken = 0;

	memset(disk, 0, sizeof(disk));
	rig_pattern(disk, 0, 128 * BLOCK, 1);
	rig_begin(&rig, &(struct rig_options){
				.depth = 128, .sessions = sessions, .structured = structured});
	for (unsigned int i = 0; i < sessions; i++) {
		servers[i] = (struct fake_disk_server){
			.fd = rig.peer[i],
			.disk = disk,
			.size = sizeof(disk),
			.options = {.random_order = true,
				    .structured = structured,
				    .chunk_bytes = chunk_bytes,
				    .seed = i},
		};
		rig.peer[i] = -1;
		fake_disk_start(&servers[i]);
	}
	for (unsigned int round = 0; round < 4; round++) {
		for (uint16_t i = 0; i < 128; i++) {
			uint64_t offset = i * BLOCK;

			memset(rig.queue.tags[i].buf, 0xaa, BLOCK);
			if (i % 2)
				rig_pattern(rig.queue.tags[i].buf, offset, BLOCK, round + 2);
			mem_front_submit(&rig.queue, i, i % 2 ? NBD_CMD_WRITE : NBD_CMD_READ, 0,
					 offset, BLOCK);
		}
		rig_run(&rig);
		for (uint16_t i = 0; i < 128; i++) {
			uint8_t expected[BLOCK];

			assert_int_equal(rig.front.slots[i].result, BLOCK);
			rig_pattern(expected, i * BLOCK, BLOCK, i % 2 ? round + 2 : 1);
			assert_memory_equal(rig.queue.tags[i].buf, expected, BLOCK);
		}
	}
	rig_end(&rig);
	for (unsigned int i = 0; i < sessions; i++) {
		fake_disk_join(&servers[i]);
		/* The session with the least in flight is chosen, so every one gets its share. */
		assert_true(servers[i].requests >= 4 * 128 / sessions / 2);
		assert_true(servers[i].disc);
		overtaken += servers[i].overtaken;
	}
	assert_true(overtaken > 100);
	for (uint16_t i = 0; i < 128; i++) {
		uint8_t expected[BLOCK];

		rig_pattern(expected, i * BLOCK, BLOCK, i % 2 ? 5 : 1);
		assert_memory_equal(disk + i * BLOCK, expected, BLOCK);
	}
}

static void a_full_queue_in_random_order(void **state)
{
	(void)state;
	shuffle(1, false, 0);
}

static void a_full_queue_in_random_chunks(void **state)
{
	(void)state;
	shuffle(1, true, 1000);
}

static void a_full_queue_over_four_sessions(void **state)
{
	(void)state;
	shuffle(4, false, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_replies_change_places),
		cmocka_unit_test(chunks_of_two_reads_are_interleaved),
		cmocka_unit_test(a_full_queue_in_random_order),
		cmocka_unit_test(a_full_queue_in_random_chunks),
		cmocka_unit_test(a_full_queue_over_four_sessions),
	};

	return rig_unavailable() ? 77 : cmocka_run_group_tests(tests, NULL, NULL);
}
