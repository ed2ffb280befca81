"""A load generator that costs little: raw sockets, epoll, requests made beforehand. Prints its counts as JSON.

Reads one JSON object: port, path, key, mode ("echo" or "paced"), connections, warm_s, measure_s.
"""

import json
import select
import socket
import sys
import time

from confide_protocol import labels

from tests.bench.gateway_node import PACED

BODY = bytes(range(256)) * 4
END = b"0\r\n\r\n"


def request(path: str, key: str, body: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        f"content-type: {labels.MEDIA_REQUEST}\r\nincremental: ?1\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def answer_bytes(port: int, message: bytes) -> int:
    """Send one request, check the answer to it, and return its length, which every later one has too."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(message)
        connection.settimeout(1.0)
        answer = b""
        while not answer.endswith((BODY, END)):
            answer += connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200 ") or BODY not in answer:
        raise SystemExit(f"no echo: {answer[:64]!r}")
    return len(answer)


def run(order: dict) -> dict:
    """Keep every connection busy, one request at a time; count what ends within the measured time."""
    paced = order["mode"] == "paced"
    message = request(order["path"], order["key"], PACED if paced else BODY)
    length = 0 if paced else answer_bytes(order["port"], message)
    poll = select.epoll()
    connections: dict[int, socket.socket] = {}
    missing: dict[int, int] = {}
    for _ in range(order["connections"]):
        connection = socket.create_connection(("127.0.0.1", order["port"]))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(message)
        connections[connection.fileno()] = connection
        missing[connection.fileno()] = length
        poll.register(connection, select.EPOLLIN)
    count = 0
    begin = time.perf_counter() + order["warm_s"]
    end = begin + order["measure_s"]
    while (now := time.perf_counter()) < end:
        for number, _ in poll.poll(0.1):
            data = connections[number].recv(65536)
            if not data:
                raise SystemExit("a connection was closed")
            if paced:
                done = data.endswith(END)
                count += data.count(b"\n\n") if now >= begin else 0
            else:
                missing[number] -= len(data)
                done = missing[number] <= 0
                count += done and now >= begin
                if missing[number] < 0:
                    raise SystemExit("an answer is longer than the first")
            if done:
                missing[number] = length
                connections[number].send(message)
    return {"per_s": count / order["measure_s"]}


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.stdin.read()))))
