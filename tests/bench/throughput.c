/* What moves bytes on both ends of a network that is measured: throughput PORT
 *
 * Listens there, and does what the first line of a connection asks:
 *   sink                      takes all that comes, then answers BYTES NANOSECONDS,
 *                             from the first byte to the last
 *   send HOST PORT SECONDS    sends to the sink there, and answers what it has answered
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[256 << 10];

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sink(int peer)
{
	long long bytes = 0, begin = 0, end = 0;
	ssize_t some;
	while ((some = read(peer, buffer, sizeof buffer)) > 0) {
		end = now();
		if (!begin)
			begin = end;
		bytes += some;
	}
	dprintf(peer, "%lld %lld\n", bytes, end - begin);
}

static int send_to(int asker, const char *host, int port, int seconds)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	int peer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ssize_t some;
	if (inet_pton(AF_INET, host, &to.sin_addr) != 1 || connect(peer, (void *)&to, sizeof to))
		return dprintf(asker, "cannot connect to %s:%d\n", host, port);
	dprintf(peer, "sink\n");
	for (long long end = now() + seconds * 1000000000LL; now() < end;)
		if (write(peer, buffer, sizeof buffer) < 0)
			return dprintf(asker, "the connection broke\n");
	shutdown(peer, SHUT_WR);
	while ((some = read(peer, buffer, sizeof buffer)) > 0)
		if (write(asker, buffer, some) < 0)
			break;
	return 0;
}

static void serve(int peer)
{
	char line[128] = "", host[64];
	int port, seconds;
	for (size_t at = 0; at < sizeof line - 1; at++)
		if (read(peer, line + at, 1) != 1 || line[at] == '\n')
			break;
	if (!strcmp(line, "sink\n"))
		sink(peer);
	else if (sscanf(line, "send %63s %d %d", host, &port, &seconds) == 3)
		send_to(peer, host, port, seconds);
}

int main(int argc, char **argv)
{
	struct sockaddr_in at = { .sin_family = AF_INET };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1, peer;
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	/* The only program of a guest gets no argument. */
	at.sin_port = htons(argc > 1 ? atoi(argv[1]) : 5000);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (void *)&at, sizeof at) || listen(listener, 8))
		return 1;
	for (;;) {
		if ((peer = accept(listener, NULL, NULL)) < 0)
			continue;
		if (fork() == 0) {
			serve(peer);
			_exit(0);
		}
		close(peer);
	}
}
