"""The client: bounded in size, time and attempts, polite when told to wait, silent about bodies."""

import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import anyio
import pytest
from confide_attestation.errors import EndorsementsUnavailable
from confide_endorsements.http import MAX_REDIRECTS, Http, Limits

from tests.fakes.vendors import Reply, Vendors

pytestmark = pytest.mark.anyio
WHAT = "a document"


async def refused(http: Http, url: str) -> str:
    with pytest.raises(EndorsementsUnavailable) as fault:
        await http.get(url, WHAT)
    assert fault.value.url == url
    assert "CANARY" not in str(fault.value)
    return fault.value.because


async def test_a_busy_service_is_given_the_time_it_asks_for(
    http: Http, vendors: Vendors, waits: list[float]
) -> None:
    """Seconds or a date; without either the wait doubles."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=20))
    vendors.routes["/a"] = [
        Reply(429, fields={"Retry-After": "7"}),
        Reply(503, fields={"Retry-After": soon}),
        Reply(500),
        Reply(body=b"here"),
    ]
    assert (await http.get(f"{vendors.url}/a", WHAT)).body == b"here"
    assert waits[0] == 7
    assert 15 < waits[1] <= 20
    assert waits[2] == 4


async def test_attempts_and_waits_are_bounded(http: Http, vendors: Vendors, waits: list[float]) -> None:
    """Four attempts; a wait that is longer than the whole is not begun; odd words for it count as none."""
    vendors.routes["/busy"] = Reply(429, b"CANARY")
    assert "429" in await refused(http, f"{vendors.url}/busy")
    assert waits == [1, 2, 4]
    vendors.routes["/later"] = Reply(429, b"CANARY", {"Retry-After": "3600"})
    assert "3600 s" in await refused(http, f"{vendors.url}/later")
    assert len(waits) == 3
    for odd in ("-1", "soon", "9" * 30, "1e9", ""):
        vendors.routes["/odd"] = [Reply(429, fields={"Retry-After": odd}), Reply(body=b"here")]
        assert (await http.get(f"{vendors.url}/odd", WHAT)).body == b"here"
    assert waits[3:] == [1] * 5


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 410, 501])
async def test_other_answers_are_final(http: Http, vendors: Vendors, status: int) -> None:
    """Asked once, named by the status alone."""
    vendors.routes["/a"] = Reply(status, b"" if status == 204 else b"CANARY")
    assert await refused(http, f"{vendors.url}/a") == f"the service answered {status}"
    assert vendors.asked == ["/a"]


async def test_a_body_that_is_too_large_is_left(vendors: Vendors) -> None:
    """By what comes, not by what is announced."""
    http = Http(plain=[vendors.url], limits=Limits(body_bytes=1000))
    vendors.routes |= {"/whole": Reply(body=b"x" * 1000), "/large": Reply(body=b"x" * 1001)}
    assert len((await http.get(f"{vendors.url}/whole", WHAT)).body) == 1000
    assert "larger than 1000 bytes" in await refused(http, f"{vendors.url}/large")


async def test_a_slow_drip_ends_at_the_limit(vendors: Vendors) -> None:
    """Each byte in time, the whole never: the total counts."""
    http = Http(plain=[vendors.url], limits=Limits(total_s=0.4, read_s=0.3))
    vendors.routes["/drip"] = Reply(body=b"x" * 500, drip_s=0.02)
    with anyio.fail_after(2):
        assert "within 0.4 s" in await refused(http, f"{vendors.url}/drip")


def serve_raw(answer: Callable[[socket.socket], None]) -> str:
    """Serve one connection after another with `answer`; return the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    answer(connection)

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    "sent",
    [
        b"CANARY is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nCANARY",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nCANARY\r\n",
        b"",
    ],
)
async def test_what_is_no_whole_answer_is_no_answer(sent: bytes) -> None:
    """Garbage, a cut body, broken chunks, nothing."""

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(sent)

    url = serve_raw(answer)
    http = Http(plain=[url], limits=Limits(attempts=2, first_wait_s=0))
    assert "breaks off" in await refused(http, url + "/a")


async def test_a_head_that_drips_ends_at_the_limit() -> None:
    """The time limit covers what comes before the body too."""
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while not stop.wait(0.02):
            connection.sendall(b"x")

    url = serve_raw(drip)
    http = Http(plain=[url], limits=Limits(total_s=0.4))
    with anyio.fail_after(2):
        assert "within 0.4 s" in await refused(http, url + "/a")
    stop.set()


async def test_a_port_where_nobody_listens() -> None:
    """Said so."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert "cannot be reached" in await refused(Http(plain=[url], limits=Limits(attempts=1)), f"{url}/a")


async def test_redirects_stay_with_the_host(http: Http, vendors: Vendors) -> None:
    """Followed on the same host a few times; never elsewhere, never to plain http, never for what was posted."""
    vendors.routes |= {
        "/old": Reply(301, fields={"Location": "/new"}),
        "/new": Reply(body=b"here"),
        "/round": Reply(302, fields={"Location": "/round"}),
        "/elsewhere": Reply(302, fields={"Location": "https://elsewhere.invalid/new"}),
        "/port": Reply(302, fields={"Location": "http://127.0.0.1:1/new"}),
        "/odd": Reply(302, fields={"Location": "http://[odd"}),
        "/file": Reply(307, fields={"Location": "file:///etc/passwd"}),
    }
    assert (await http.get(f"{vendors.url}/old", WHAT)).body == b"here"
    assert f"more than {MAX_REDIRECTS}" in await refused(http, f"{vendors.url}/round")
    for path in ("elsewhere", "port", "odd", "file"):
        assert "another place" in await refused(http, f"{vendors.url}/{path}")
    with pytest.raises(EndorsementsUnavailable, match="another place"):
        await http.post(f"{vendors.url}/old", WHAT, {}, b"CANARY")


@pytest.mark.parametrize(
    "url", ["http://kds.invalid/a", "ftp://kds.invalid/a", "file:///etc/passwd", "http://[", ""]
)
async def test_only_https_is_asked_unless_configured(vendors: Vendors, url: str) -> None:
    """Nothing is sent to any other URL."""
    because = await refused(Http(plain=[vendors.url]), url)
    assert because in ("only https is asked", "that is no URL")


async def test_a_certificate_of_nobody_is_refused(vendors: Vendors) -> None:
    """Over https a server without a sound certificate is not asked."""
    url = vendors.url.replace("http://", "https://")
    assert "cannot be reached" in await refused(Http(limits=Limits(attempts=1)), f"{url}/a")
    assert vendors.asked == []
