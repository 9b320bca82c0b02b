# SPDX-License-Identifier: MIT
# An image with the program alone (default), its Debian package (--target deb), and the environment in
# which it is built and tested (--target test).
#
#   docker build -t gkproxy .
#   docker build --target deb -o packages .
#   docker build --target test -t gkproxy-test . && docker run --rm gkproxy-test
#
# What the program needs to run in a container: deploy/doc/container.md, deploy/container/compose.yml. The
# tests use virtual machines, so they need no privilege.
ARG DEBIAN=trixie

FROM debian:${DEBIAN}-slim AS build
COPY deploy/install-deps.sh /tmp/
RUN /tmp/install-deps.sh build && rm -rf /var/cache/apt/* /var/lib/apt/lists/*

FROM build AS package
RUN --mount=type=bind,target=/src \
	cmake -S /src -B /build -DBUILD_TESTING=OFF -DCMAKE_INSTALL_PREFIX=/usr >/dev/null \
	&& cmake --build /build -j "$(nproc)" >/dev/null \
	&& cpack --config /build/CPackConfig.cmake -B /packages && rm -rf /build /packages/_CPack_Packages

FROM scratch AS deb
COPY --from=package /packages/ /

FROM build AS test
COPY . /src
WORKDIR /src
RUN deploy/install-deps.sh
# What .ci/run does; the kernels come from the image's Debian mirror when it runs.
CMD ["tests/run.sh", "all"]

FROM debian:${DEBIAN}-slim AS program
RUN --mount=type=bind,from=package,source=/packages,target=/packages \
	apt-get -qq update \
	&& DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install /packages/*.deb \
	&& rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /etc/gkproxy/proxy.conf
# Attaching disks takes root: the ublk devices are root's. "probe URI" does not: --user nobody.
ENTRYPOINT ["/usr/sbin/gkproxy"]
CMD ["-c", "/etc/gkproxy/proxy.conf"]
