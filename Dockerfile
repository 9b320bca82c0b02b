# SPDX-License-Identifier: MIT
# The environment in which gkproxy is built and tested, and an image with the program alone.
#
#   docker build --target test -t gkproxy-test . && docker run --rm gkproxy-test
#   docker build -t gkproxy .
#
# The tests use virtual machines, so they need no privilege. To attach disks, the program needs the host's
# ublk: docker run --privileged --network host -v /dev:/dev -v ./proxy.conf:/etc/gkproxy/proxy.conf gkproxy

FROM debian:13 AS build
COPY deploy/install-deps.sh /tmp/
RUN /tmp/install-deps.sh
COPY . /src
WORKDIR /src
RUN cmake -S . -B /build -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX=/usr/local \
	&& cmake --build /build -j "$(nproc)" \
	&& DESTDIR=/installed cmake --install /build

FROM build AS test
# What .ci/run does; the kernels come from the image's Debian mirror when it runs.
CMD ["tests/run.sh", "all"]

FROM debian:13-slim
RUN apt-get update \
	&& apt-get install -y --no-install-recommends liburing2 libconfig11 libjansson4 libmicrohttpd12t64 libssl3t64 \
	&& rm -rf /var/lib/apt/lists/*
COPY --from=build /installed/ /
ENTRYPOINT ["/usr/local/sbin/gkproxy"]
CMD ["-c", "/etc/gkproxy/proxy.conf"]
