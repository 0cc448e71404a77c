# syntax=docker/dockerfile:1
FROM golang:1.26.10 AS build
ARG VERSION=dev
ENV GOTOOLCHAIN=go1.26.10
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build VERSION=$VERSION

# No shell, no package manager, no root.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/bin/podlink /podlink
COPY configs/config.yaml /etc/podlink/config.yaml
# Listen on all interfaces of the container. So podlink asks callers who they are, and does not start before it knows how: set
# PODLINK_AUTH_MODE=required with credentials and TLS (docs/security.md), or, where everyone who reaches the container may move
# every user, PODLINK_AUTH_ALLOW_INSECURE=true. With the embedded store, to try it, PODLINK_DATA_REDIS_ALLOW_EMBEDDED=true too.
ENV PODLINK_SERVER_HTTP_ADDR=0.0.0.0:8000 \
    PODLINK_SERVER_GRPC_ADDR=0.0.0.0:9000 \
    PODLINK_SERVER_ADMIN_ADDR=0.0.0.0:8001
USER 65532:65532
EXPOSE 8000 9000 8001
HEALTHCHECK --interval=10s --timeout=3s CMD ["/podlink", "-conf", "/etc/podlink", "-health"]
ENTRYPOINT ["/podlink", "-conf", "/etc/podlink"]
