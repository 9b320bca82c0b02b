// SPDX-License-Identifier: MIT
#include "mail.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#define SLOTS 3

static bool has_mail(const struct gk_mail *mail)
{
	struct pollfd pfd = {.fd = mail->event_fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

static int some_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void begin(struct gk_mail *mail)
{
	assert_int_equal(gk_mail_init(mail, SLOTS), 0);
	assert_false(has_mail(mail));
}

static void an_offer_arrives_at_its_slot(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	struct gk_mail_offer offer = {
		.fd = some_fd(),
		.id = 17,
		.facts = {.structured = true, .max_payload = 12345},
	};
	struct gk_mail_orders orders = {true, true, true, true, true};

	(void)state;
	begin(&mail);
	gk_mail_offer(&mail, 1, &offer);
	assert_true(has_mail(&mail));
	gk_mail_take(&mail, offers, &orders);
	assert_false(has_mail(&mail));
	assert_false(orders.abort);
	assert_false(orders.detach);
	assert_int_equal(offers[0].fd, -1);
	assert_int_equal(offers[2].fd, -1);
	assert_int_equal(offers[1].fd, offer.fd);
	assert_int_equal(offers[1].id, 17);
	assert_true(offers[1].facts.structured);
	assert_int_equal(offers[1].facts.max_payload, 12345);
	gk_mail_taken(&mail, 1);
	/* And is not there a second time. */
	gk_mail_take(&mail, offers, &orders);
	assert_int_equal(offers[1].fd, -1);
	gk_mail_done(&mail);
	assert_true(is_open(offer.fd));
	close(offer.fd);
}

/* Else the session would look dead and unattended for a moment, and be dialled twice. */
static void an_offer_stands_until_its_session_is_up(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	struct gk_mail_offer offer = {.fd = some_fd()};
	struct gk_mail_orders orders;

	(void)state;
	begin(&mail);
	assert_false(gk_mail_offered(&mail, 0));
	gk_mail_offer(&mail, 0, &offer);
	assert_true(gk_mail_offered(&mail, 0));
	assert_false(gk_mail_offered(&mail, 1));
	gk_mail_take(&mail, offers, &orders);
	assert_true(gk_mail_offered(&mail, 0));
	gk_mail_taken(&mail, 0);
	assert_false(gk_mail_offered(&mail, 0));
	close(offer.fd);
	gk_mail_done(&mail);
}

static void letters_of_one_moment_are_taken_together(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	int fds[SLOTS];
	struct gk_mail_orders orders;

	(void)state;
	begin(&mail);
	for (unsigned int i = 0; i < SLOTS; i++) {
		struct gk_mail_offer offer = {.fd = fds[i] = some_fd(), .id = i};

		gk_mail_offer(&mail, i, &offer);
	}
	gk_mail_order(&mail, false, true);
	gk_mail_take(&mail, offers, &orders);
	assert_false(has_mail(&mail));
	assert_true(orders.detach);
	for (unsigned int i = 0; i < SLOTS; i++) {
		assert_int_equal(offers[i].fd, fds[i]);
		assert_int_equal(offers[i].id, i);
		gk_mail_taken(&mail, i);
		close(fds[i]);
	}
	gk_mail_done(&mail);
}

static void orders_stay_in_force(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	struct gk_mail_orders orders;

	(void)state;
	begin(&mail);
	gk_mail_order(&mail, false, true);
	gk_mail_take(&mail, offers, &orders);
	assert_false(orders.abort);
	assert_true(orders.detach);
	gk_mail_order(&mail, true, false);
	assert_true(has_mail(&mail));
	for (unsigned int i = 0; i < 2; i++) {
		gk_mail_take(&mail, offers, &orders);
		assert_true(orders.abort);
		assert_true(orders.detach);
	}
	gk_mail_done(&mail);
}

static void leaving_a_server_is_done_once(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	struct gk_mail_orders orders;

	(void)state;
	begin(&mail);
	gk_mail_leave(&mail);
	assert_true(has_mail(&mail));
	gk_mail_take(&mail, offers, &orders);
	assert_true(orders.leave);
	assert_false(orders.abort);
	assert_false(orders.detach);
	gk_mail_take(&mail, offers, &orders);
	assert_false(orders.leave);
	gk_mail_done(&mail);
}

static void handing_over_is_done_once(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offers[SLOTS];
	struct gk_mail_orders orders;

	(void)state;
	begin(&mail);
	gk_mail_hand_over(&mail);
	assert_true(has_mail(&mail));
	gk_mail_take(&mail, offers, &orders);
	assert_true(orders.hand_over);
	assert_false(orders.leave || orders.abort || orders.detach);
	gk_mail_take(&mail, offers, &orders);
	assert_false(orders.hand_over);
	gk_mail_done(&mail);
}

static void sockets_that_nobody_took_are_closed(void **state)
{
	struct gk_mail mail;
	struct gk_mail_offer offer = {.fd = some_fd()};

	(void)state;
	begin(&mail);
	gk_mail_offer(&mail, 2, &offer);
	gk_mail_done(&mail);
	assert_false(is_open(offer.fd));
	/* And once more is nothing more. */
	gk_mail_done(&mail);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_offer_arrives_at_its_slot),
		cmocka_unit_test(an_offer_stands_until_its_session_is_up),
		cmocka_unit_test(letters_of_one_moment_are_taken_together),
		cmocka_unit_test(orders_stay_in_force),
		cmocka_unit_test(leaving_a_server_is_done_once),
		cmocka_unit_test(handing_over_is_done_once),
		cmocka_unit_test(sockets_that_nobody_took_are_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
