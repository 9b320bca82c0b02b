/* SPDX-License-Identifier: MIT */
/*
 * The metrics' text, its HTTP end, and the dashboard in deploy/, whose queries must only name
 * metrics that there are. With an argument, writes the text there, for promtool.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "metrics.h"

static struct gk_stats stats;

static void fill(struct gk_status_device *devices)
{
	memset(&stats, 0, sizeof(stats));
	stats.in_flight = 3;
	stats.reconnects = 2;
	stats.counters.requests[GK_OP_READ] = 2;
	stats.counters.requests[GK_OP_WRITE] = 1;
	stats.counters.bytes_read = 8192;
	stats.counters.errors = 1;
	gk_histogram_add(&stats.latency[GK_OP_READ], 20000);
	gk_histogram_add(&stats.latency[GK_OP_READ], 1500000000);
	gk_histogram_add(&stats.latency[GK_OP_WRITE], UINT64_C(1) << 37);
	devices[0] = (struct gk_status_device){
		.name = "vol0",
		.state = "degraded",
		.origin = "file",
		.remote = "nbd://h/a\"b\\c\n",
		.attached = true,
		.dev_id = 7,
		.size_bytes = 1 << 20,
		.peer = "10.0.0.5:10809",
		.data_path = "copy",
		.data_path_why = "",
		.n_queues = 1,
		.n_connections = 2,
		.connections = {{GK_SESSION_UP, "user", "TLSv1.3", "x"},
				{GK_SESSION_DEAD, "off", NULL, NULL}},
		.total = &stats,
	};
	devices[1] = (struct gk_status_device){
		.name = "vol1", .state = "attaching", .origin = "request", .remote = "nbd://h/"};
}

static char *text_of_two(void)
{
	struct gk_status_device devices[2];
	char *text;

	fill(devices);
	text = gk_metrics_text(devices, 2);
	assert_non_null(text);
	return text;
}

static void has_line(const char *text, const char *line)
{
	char *whole;

	assert_true(asprintf(&whole, "\n%s\n", line) > 0);
	if (!strstr(text, whole))
		fail_msg("no line '%s' in\n%s", line, text);
	free(whole);
}

static void the_text_says_what_was_counted(void **state)
{
	char *text = text_of_two();

	(void)state;
	has_line(text, "# TYPE gkproxy_requests_total counter");
	has_line(text, "gkproxy_requests_total{device=\"vol0\",op=\"read\"} 2");
	has_line(text, "gkproxy_read_bytes_total{device=\"vol0\"} 8192");
	has_line(text, "gkproxy_request_errors_total{device=\"vol0\"} 1");
	has_line(text, "gkproxy_reconnects_total{device=\"vol0\"} 2");
	has_line(text, "gkproxy_device_requests_in_flight{device=\"vol0\"} 3");
	has_line(text, "gkproxy_device_up{device=\"vol0\"} 0");
	has_line(text, "gkproxy_device_up{device=\"vol1\"} 0");
	has_line(text, "gkproxy_device_connections{device=\"vol0\",state=\"up\"} 1");
	has_line(text, "gkproxy_device_connections{device=\"vol0\",state=\"dead\"} 1");
	has_line(text, "gkproxy_device_info{device=\"vol0\",path=\"/dev/ublkb7\","
		       "remote=\"nbd://h/a\\\"b\\\\c\\n\",data_path=\"copy\",tls=\"user\"} 1");
	assert_null(strstr(text, "gkproxy_device_size_bytes{device=\"vol1\"}"));
	free(text);
}

static void histograms_are_in_seconds_and_cumulative(void **state)
{
	char *text = text_of_two();

	(void)state;
	has_line(text, "# TYPE gkproxy_request_duration_seconds histogram");
#define BUCKET "gkproxy_request_duration_seconds_bucket{device=\"vol0\",op="
	has_line(text, BUCKET "\"read\",le=\"1.6384e-05\"} 0");
	has_line(text, BUCKET "\"read\",le=\"3.2768e-05\"} 1");
	has_line(text, BUCKET "\"read\",le=\"1.07374182\"} 1");
	has_line(text, BUCKET "\"read\",le=\"2.14748365\"} 2");
	has_line(text, BUCKET "\"read\",le=\"+Inf\"} 2");
	has_line(text, BUCKET "\"write\",le=\"34.3597384\"} 0");
	has_line(text, BUCKET "\"write\",le=\"+Inf\"} 1");
#undef BUCKET
	has_line(text, "gkproxy_request_duration_seconds_sum{device=\"vol0\",op=\"read\"} "
		       "1.500020000");
	has_line(text, "gkproxy_request_duration_seconds_count{device=\"vol0\",op=\"read\"} 2");
	free(text);
}

/* -- HTTP -- */

struct page {
	unsigned int asked;
};

static char *source(void *arg)
{
	struct page *page = arg;
	char *text = malloc(200001);

	page->asked++;
	memset(text, '#', 200000);
	text[200000] = '\0';
	return text;
}

static int connect_to(unsigned int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* A port that was free a moment ago. */
static unsigned int free_port(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	close(fd);
	return ntohs(addr.sin_port);
}

/* Asks, and reads to the end of the connection, while the server gets its turns. */
static char *ask(struct gk_metrics *metrics, unsigned int port, const char *request, size_t *ret_n)
{
	char *answer = malloc(400000);
	int fd = connect_to(port);
	ssize_t got = -1;
	size_t n = 0;

	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	while (got) {
		struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}};
		int ms;

		fds[1] = (struct pollfd){.fd = gk_metrics_fd(metrics, &ms), .events = POLLIN};
		poll(fds, 2, ms);
		gk_metrics_step(metrics);
		got = recv(fd, answer + n, 399999 - n, 0);
		assert_true(got >= 0 || errno == EAGAIN);
		n += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	answer[n] = '\0';
	*ret_n = n;
	return answer;
}

static void http_serves_one_page(void **state)
{
	static const struct {
		const char *request;
		const char *status;
		bool page;
	} cases[] = {
		{"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", true},
		{"HEAD /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 200", false},
		{"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.1 404", false},
		{"POST /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nxx",
		 "HTTP/1.1 405", false},
		{"\x01\x02 nonsense\r\n\r\n", "HTTP/1.", false},
	};
	unsigned int port = free_port();
	struct page page = {.asked = 0};
	struct gk_metrics *metrics;
	char address[32];
	int silent;

	(void)state;
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	assert_int_equal(gk_metrics_start(address, source, &page, &metrics), 0);
	/* Somebody who connects and says nothing is in nobody's way. */
	silent = connect_to(port);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t n;
		char *answer = ask(metrics, port, cases[i].request, &n);

		if (strncmp(answer, cases[i].status, strlen(cases[i].status)))
			fail_msg("case %zu: '%.200s'", i, answer);
		assert_int_equal(n > 200000, cases[i].page);
		if (cases[i].page)
			assert_non_null(strstr(answer, "version=0.0.4"));
		free(answer);
	}
	assert_int_equal(page.asked, 2);
	close(silent);
	gk_metrics_stop(metrics);
}

/* A turn as the daemon takes it. */
static void turn(struct gk_metrics *metrics)
{
	int ms;
	struct pollfd ready = {.fd = gk_metrics_fd(metrics, &ms), .events = POLLIN};

	(void)poll(&ready, 1, ms);
	gk_metrics_step(metrics);
}

/* Who cannot be let in is not looked at without a pause: that would take a whole processor. */
static void without_descriptors_nobody_spins(void **state)
{
	enum { LIMIT = 64 };
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
	unsigned int port = free_port(), n = 0;
	struct page page = {.asked = 0};
	struct rlimit usual, limit;
	struct gk_metrics *metrics;
	int fd, fds[LIMIT], ms;
	char address[32], line[16] = "";

	(void)state;
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	assert_int_equal(gk_metrics_start(address, source, &page, &metrics), 0);
	fd = connect_to(port);
	assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
	limit = usual;
	limit.rlim_cur = LIMIT;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while (n < LIMIT && (fds[n] = dup(STDIN_FILENO)) >= 0)
		n++;
	gk_metrics_step(metrics);
	assert_int_equal(gk_metrics_fd(metrics, &ms), -1);
	assert_true(ms > 0);
	while (n)
		close(fds[--n]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
	while (recv(fd, line, sizeof(line) - 1, MSG_DONTWAIT) < 0)
		turn(metrics);
	assert_ptr_equal(strstr(line, "HTTP/1.1 200"), line);
	close(fd);
	gk_metrics_stop(metrics);
}

static void a_bad_address_is_refused(void **state)
{
	static const char *const bad[] = {"9105", "localhost:9105", "127.0.0.1:http", "1.2.3:4:5",
					  "127.0.0.1:99999", ":", "[::1:9105"};
	struct gk_metrics *metrics;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (gk_metrics_start(bad[i], source, NULL, &metrics) >= 0)
			fail_msg("'%s' was taken", bad[i]);
}

/* -- the dashboard -- */

/* Whether the text has a sample of that name. */
static bool is_metric(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = strstr(text, name); p; p = strstr(p + 1, name))
		if (p[-1] == '\n' && (p[n] == '{' || p[n] == ' '))
			return true;
	return false;
}

static unsigned int check_queries(const json_t *value, const char *text)
{
	unsigned int found = 0;
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_array(value)) {
		json_array_foreach((json_t *)value, i, member)
			found += check_queries(member, text);
	}
	json_object_foreach((json_t *)(uintptr_t)value, key, member) {
		const char *p = json_string_value(member);

		found += check_queries(member, text);
		while ((p = p ? strstr(p, "gkproxy_") : NULL)) {
			char name[128];
			size_t n = 0;

			while (n < sizeof(name) - 1 && (isalnum((unsigned char)p[n]) || p[n] == '_'))
				n++;
			snprintf(name, sizeof(name), "%.*s", (int)n, p);
			if (!is_metric(text, name))
				fail_msg("%s: there is no metric %s", key, name);
			found++;
			p += n;
		}
	}
	return found;
}

static void the_dashboard_names_only_metrics_that_there_are(void **state)
{
	json_t *dashboard = json_load_file(GK_SOURCE_DIR "/deploy/grafana-dashboard.json", 0, NULL);
	char *text = text_of_two();

	(void)state;
	assert_non_null(dashboard);
	assert_true(json_array_size(json_object_get(dashboard, "panels")) > 5);
	assert_true(check_queries(dashboard, text) > 10);
	json_decref(dashboard);
	free(text);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_text_says_what_was_counted),
		cmocka_unit_test(histograms_are_in_seconds_and_cumulative),
		cmocka_unit_test(http_serves_one_page),
		cmocka_unit_test(without_descriptors_nobody_spins),
		cmocka_unit_test(a_bad_address_is_refused),
		cmocka_unit_test(the_dashboard_names_only_metrics_that_there_are),
	};

	if (argc > 1) {
		FILE *file = fopen(argv[1], "w");
		char *text = text_of_two();
		bool bad = !file || fputs(text, file) < 0 || fclose(file);

		free(text);
		return bad;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
