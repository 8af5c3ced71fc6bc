"""The load itself: a generator that overlooks a loss would prove anything. Without Docker."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import islice
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.load import ledger, mix, relay
from tests.load.client import Connection, Endpoint, Fresh, Kept, Lost, Request, trusting
from tests.load.generator import Generator, Job, Sample
from tests.load.http2 import Multiplexed
from tests.load.report import Phase, Report, percentile

# Rates and delays are measured.
pytestmark = pytest.mark.alone

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = Request("GET", "/", {})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
USER = mix.User("ada@example.com", "access", "refresh", "1")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    made = ("openssl", "req", "-x509", *curve, *names, "-days", "2", "-keyout", str(key), "-out", str(certificate))
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


Serve = Callable[..., AbstractAsyncContextManager[Endpoint]]


@pytest.fixture
def serve(certificate: tuple[Path, Path]) -> Serve:
    """Serve TLS with a handler for connections; yields where to connect to."""

    @asynccontextmanager
    async def serve(handler: Handler, protocol: str = "http/1.1"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.set_alpn_protocols([protocol])
        server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        yield Endpoint(("127.0.0.1", port), f"localhost:{port}", trusting(certificate[0], protocol))
        server.close()

    return serve


def answering(*answers: bytes) -> Handler:
    """A handler that gives these answers on each connection, and then closes it."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        writer.close()

    return handle


# ── the relay ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def relayed(handler: Handler, delay: float = 0.05):
    """Streams to a handler through a relay."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    between = await relay.start([("127.0.0.1", server.sockets[0].getsockname()[1])], delay)
    reader, writer = await asyncio.open_connection("127.0.0.1", between.sockets[0].getsockname()[1])
    yield reader, writer
    writer.close()
    between.close()
    server.close()


def test_relay_adds_a_round_trip_keeps_order_and_passes_half_closes() -> None:
    async def scenario() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read()  # to the end of this direction; the other stays open
            writer.write(data)
            writer.close()

        sent = b"".join(number.to_bytes(4) for number in range(20_000))
        async with relayed(echo) as (reader, writer):
            started = asyncio.get_running_loop().time()
            for start in range(0, len(sent), 1000):
                writer.write(sent[start : start + 1000])
                await asyncio.sleep(0)
            writer.write_eof()
            assert await reader.read() == sent
            # Opening takes a round trip, and so does the echo. How much longer it takes is the machine's affair.
            assert asyncio.get_running_loop().time() - started >= 0.2

    asyncio.run(scenario())


def test_relay_passes_resets_and_refusals() -> None:
    async def scenario() -> None:
        async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.get_extra_info("socket").setsockopt(relay.socket.SOL_SOCKET, relay.socket.SO_LINGER, relay._RESET)
            writer.transport.abort()

        async with relayed(reset) as (reader, writer):
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
        nobody = await asyncio.start_server(reset, "127.0.0.1", 0)
        port = nobody.sockets[0].getsockname()[1]
        nobody.close()
        between = await relay.start([("127.0.0.1", port)], 0.01)
        reader, _ = await asyncio.open_connection("127.0.0.1", between.sockets[0].getsockname()[1])
        with pytest.raises(ConnectionResetError):
            await reader.read()
        between.close()

    asyncio.run(scenario())


def test_relay_goes_to_another_target_when_one_does_not_answer() -> None:
    async def scenario() -> None:
        async def here(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"here")
            writer.close()

        nobody = await asyncio.start_server(here, "127.0.0.1", 0)
        refusing = nobody.sockets[0].getsockname()
        nobody.close()
        server = await asyncio.start_server(here, "127.0.0.1", 0)
        between = await relay.start([refusing, server.sockets[0].getsockname()], 0.01)
        for _ in range(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", between.sockets[0].getsockname()[1])
            assert await reader.read() == b"here"
            writer.close()
        between.close()
        server.close()

    asyncio.run(scenario())


# ── the clients ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_kept_connection_found_closed_before_sending_is_replaced_and_nothing_is_lost(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(answering(OK)) as endpoint:
            kept = Kept(endpoint, clients=1)
            for _ in range(3):
                assert (await kept.ask(GET)).body == b"ok"
                await asyncio.sleep(0.05)  # its end arrives
            assert kept.reopened == 2

    asyncio.run(scenario())


def test_request_whose_connection_closes_under_it_is_lost(serve: Serve) -> None:
    async def scenario() -> None:
        async def close_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        async with serve(close_at_the_second) as endpoint:
            kept = Kept(endpoint, clients=1)
            await kept.ask(GET)
            with pytest.raises(Lost) as lost:
                await kept.ask(GET)
            assert lost.value.reason == "eof"
            assert (await kept.ask(GET)).status == 200  # and the next one has a new connection

    asyncio.run(scenario())


def test_announced_close_is_honoured_and_all_bodies_are_read(serve: Serve) -> None:
    async def scenario() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        empty = b"HTTP/1.1 204 No Content\r\n\r\n"
        last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        async with serve(answering(chunked, empty, last)) as endpoint:
            kept = Kept(endpoint, clients=1)
            assert [(await kept.ask(GET)).body for _ in range(4)] == [b"ok", b"", b"ok", b"ok"]
            assert kept.reopened == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("cut", "reason"), [(10, "eof"), (len(OK) - 1, "eof")])
def test_half_an_answer_is_a_loss(serve: Serve, cut: int, reason: str) -> None:
    async def scenario() -> None:
        async with serve(answering(OK[:cut])) as endpoint:
            with pytest.raises(Lost) as lost:
                await Fresh(endpoint).ask(GET)
            assert lost.value.reason == reason

    asyncio.run(scenario())


def test_refused_connection_is_a_loss(serve: Serve) -> None:
    async def scenario() -> None:
        async with serve(answering()) as endpoint:
            pass
        with pytest.raises(Lost) as lost:
            await Connection.open(endpoint)
        assert lost.value.reason == "connect"

    asyncio.run(scenario())


def go_away_in_the_middle(seen: list[str]) -> Handler:
    """A server that, on its first connection, leaves when two streams are open: it answers the first one only."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        protocol.initiate_connection()
        writer.write(protocol.data_to_send())
        first = not seen
        streams: list[int] = []
        while data := await reader.read(65536):
            for event in protocol.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    streams.append(event.stream_id)
                    seen.append(dict(event.headers)[":path"])
                    if not first:
                        respond(protocol, event.stream_id)
            writer.write(protocol.data_to_send())
            if first and len(streams) == 2:
                # GOAWAY by hand: h2 would close the connection, but its answers are still to come.
                writer.write(b"\0\0\x08\x07\0\0\0\0\0" + streams[0].to_bytes(4) + bytes(4))
                await asyncio.sleep(0.05)
                respond(protocol, streams[0])
                writer.write(protocol.data_to_send())
                writer.close()
                return

    def respond(protocol: h2.connection.H2Connection, stream: int) -> None:
        protocol.send_headers(stream, [(":status", "200")])
        protocol.send_data(stream, b"ok", end_stream=True)

    return handle


def test_http2_streams_the_server_did_not_process_go_out_again_and_the_others_are_answered(serve: Serve) -> None:
    async def scenario() -> None:
        seen: list[str] = []
        async with serve(go_away_in_the_middle(seen), "h2") as endpoint:
            client = Multiplexed(endpoint, size=1)
            answers = await asyncio.gather(*(client.ask(Request("GET", f"/{number}", {})) for number in range(2)))
            assert [answer.body for answer in answers] == [b"ok", b"ok"]
            assert (client.resent, client.reopened) == (1, 1)
            assert sorted(seen) == ["/0", "/1", "/1"]
            client.close()

    asyncio.run(scenario())


def test_http2_streams_open_when_the_connection_just_ends_are_lost(serve: Serve) -> None:
    async def scenario() -> None:
        async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(65536)
            await asyncio.sleep(0.05)
            writer.close()

        async with serve(drop, "h2") as endpoint:
            client = Multiplexed(endpoint, size=1)
            found = await asyncio.gather(client.ask(GET), client.ask(GET), return_exceptions=True)
            assert [each.reason for each in found if isinstance(each, Lost)] == ["eof", "eof"]
            client.close()

    asyncio.run(scenario())


# ── the generator ─────────────────────────────────────────────────────────────────────────────────────────────────────


def new_generator(endpoint: Endpoint, trust: Path, rate: float) -> Generator:
    job = Job(*endpoint.address, endpoint.authority, str(trust), rate, "run", ["kept", "fresh"], [USER])
    return Generator(Job.parse(job.encode()))


def test_load_is_open_a_server_that_stalls_gets_no_fewer_requests(serve: Serve, certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        waiting, stalled = 0, asyncio.Event()

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal waiting
            await reader.readuntil(b"\r\n\r\n")
            waiting += 1
            if waiting == 30:
                generator.end()
                stalled.set()
            await stalled.wait()
            writer.write(OK)
            writer.close()

        async with serve(stall) as endpoint:
            generator = new_generator(endpoint, certificate[0], 50)
            await asyncio.wait_for(generator.run(), 30)
        report = Report.parse(generator.result())
        # Who waits for answers would never have come to the thirtieth.
        assert report.all.sent >= 30
        assert report.all.rate == pytest.approx(50, rel=0.05)
        # Nobody is sent before its turn, and the wait counts from when it was due: the first waited for all the others.
        assert max(each.took for each in report.samples) >= 29 / 50

    asyncio.run(scenario())


def test_answers_that_are_not_the_expected_ones_are_losses(serve: Serve, certificate: tuple[Path, Path]) -> None:
    async def scenario() -> None:
        async with serve(answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")) as endpoint:
            generator = new_generator(endpoint, certificate[0], 50)
            asyncio.get_running_loop().call_later(0.3, generator.end)
            await generator.run()
        report = Report.parse(generator.result())
        assert {each.lost for each in report.samples} <= {"status 502", "eof"}
        assert len(report.all.lost) == report.all.sent > 0

    asyncio.run(scenario())


def test_mixture_is_what_was_asked_for() -> None:
    drawn = list(islice(mix.turns([USER], "run", ["kept", "fresh"]), 4000))
    assert sum(turn.request.method == "POST" for turn in drawn) == 2000
    assert sum(turn.transport == "kept" for turn in drawn) == 2000
    assert sum("slow" in turn.kind.name and "quiet" not in turn.kind.name for turn in drawn) == 40
    assert sum(turn.kind.hops > 0 for turn in drawn) >= 1200
    assert len({turn.name for turn in drawn}) == 4000
    assert all(bool(turn.kind.writes) == (turn.request.method == "POST") for turn in drawn)


# ── the report and the ledger ─────────────────────────────────────────────────────────────────────────────────────────


def sample(name: str, took: float = 0.1, lost: str = "", writes: str = "items") -> Sample:
    return Sample("create", name, writes, "kept", 0, "idle", 0.0, 0.0, took, lost)


def test_percentiles() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [percentile(hundred, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([], 99) == 0
    assert Phase("idle", [sample("a", 0.2), sample("b", 9, lost="eof")]).took(100) == 200


def test_ledger_finds_what_is_missing_twice_or_there_without_an_answer() -> None:
    samples = [sample("a"), sample("b"), sample("c"), sample("d", lost="eof"), sample("e", writes="")]
    kept = ledger.compare(samples, {"a": 1, "b": 2, "d": 1})
    assert (kept.acknowledged, kept.missing, kept.doubled, kept.unanswered) == (3, ["c"], ["b"], ["d"])
    assert not kept.exact
    assert ledger.compare(samples, {"a": 1, "b": 1, "c": 1, "d": 1}).exact
