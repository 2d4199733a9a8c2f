"""The traffic of a soak: browsers that do all kinds of things; checks of each response."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from chaos_parts.client import HOST, CutError, Pool, Reply
from chaos_parts.sign_in import at_development_provider
from chaos_parts.traffic import Session
from soak_parts.stage import Stage
from support.h2_client import Answer, H2Client
from support.ports import LOOPBACK
from websockets import HANDSHAKE, MESSAGE

MAX_IN_FLIGHT = 100
MAX_EXAMPLES = 10  # of wrong responses
MAX_SIGNED_OUT = 200
LEEWAY = 2.0  # seconds of a busy machine
FIRST_ROUNDS = 3  # in which all kinds come equally often
REVOKED_DELAY = 3.0  # seconds after which a signed-out session must be rejected
SOCKET_INTERVAL = 1.0  # seconds between two messages of a WebSocket
SMALL, MEDIUM, LARGE = 2_000, 60_000, 2_000_000  # bytes
REST = 0.002  # of the uses of a session: its user pauses until it is idle too long


@dataclass(eq=False)
class Browser:
    """A user's session; None after it has ended."""

    user: str
    session: Session | None = None
    login_started_at: float = 0.0  # `Session.login_at` is its end
    used_at: float = 0.0  # start of its last successful request
    ended_at: float = 0.0  # end of that response
    away_until: float = 0.0
    is_busy: bool = False  # with a login
    last_use: str = "login"

    def used(self, start: float, what: str) -> None:
        """Record a successful request that began at *start*."""
        if start > self.used_at:
            self.used_at, self.last_use = start, what
        self.ended_at = time.monotonic()


class Traffic:
    """Sends a mixture at a fixed rate until it is stopped."""

    def __init__(
        self, stage: Stage, users: int, sessions: int, sockets: int, seed: int
    ) -> None:
        self._stage = stage
        self._tls = ssl.create_default_context(cafile=stage.certificate.cert_file)
        self._pool = Pool(stage.port, self._tls)
        self._provider = Pool(stage.provider_port)
        self._dice = random.Random(seed)
        self._browsers = [
            Browser(f"user-{number % users}") for number in range(sessions)
        ]
        self._max_sockets = sockets
        self._sockets = 0
        self._signed_out: list[tuple[float, str]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.counts: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.examples: list[str] = []
        self._kinds: dict[Callable[[], Awaitable[None]], int] = {  # with weights
            self._check: 420,
            self._get: 250,
            self._post: 120,
            self._large: 8,
            self._anonymous: 80,
            self._bad_cookie: 20,
            self._sign_out: 12,
            self._signed_out_check: 12,
            self._abandoned_login: 12,
            self._cut_upload: 12,
            self._socket: 12,
            self._http2: 12,
        }

    async def run(self, rate: float, seconds: float) -> None:
        """Start *rate* actions per second for *seconds*; wait for their end."""
        start, started = time.monotonic(), 0
        kinds, weights = list(self._kinds), list(self._kinds.values())
        first = FIRST_ROUNDS * kinds
        while (now := time.monotonic()) < start + seconds:
            due = int((now - start) * rate)
            if due - started > rate:  # this process was late; do not make up for it
                started = due - 1
            while started < due:
                started += 1
                [kind] = first[:1] or self._dice.choices(kinds, weights)
                del first[:1]
                if len(self._tasks) < MAX_IN_FLIGHT + self._sockets:
                    self._spawn(kind)
            await asyncio.sleep(0.01)
        self._stopping = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, kind: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._perform(kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _perform(self, kind: Callable[[], Awaitable[None]]) -> None:
        name = kind.__name__.strip("_").replace("_", " ")
        self.counts[name] += 1
        try:
            await kind()
        except (CutError, OSError, TimeoutError, ValueError) as error:
            self._report(f"{name}: {type(error).__name__}", repr(error))

    def _report(self, kind: str, detail: str) -> None:
        self.wrong[kind] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{time.strftime('%H:%M:%S')} {kind}: {detail}"[:300])

    def _expect(self, kind: str, reply: Reply | Answer, *statuses: int) -> bool:
        if reply.status in statuses:
            return True
        self._report(f"{kind}: status {reply.status}", repr(reply.body[:100]))
        return False

    # Sessions

    async def _browser(self) -> Browser | None:
        """Return a browser with a session; None if its user is away or signing in."""
        browser = self._dice.choice(self._browsers)
        if browser.is_busy or browser.away_until > time.monotonic():
            return None
        if browser.session is None:
            browser.is_busy = True
            browser.login_started_at = time.monotonic()
            try:
                browser.session = await self._log_in(browser.user)
            finally:
                browser.is_busy = False
            browser.used(browser.login_started_at, "login")
            self.counts["login"] += 1
        elif self._dice.random() < REST:
            pause = 1.1 * self._stage.lifetimes.idle + LEEWAY
            browser.away_until = time.monotonic() + pause
            return None
        return browser if browser.session is not None else None

    async def _log_in(self, user: str) -> Session | None:
        session = Session(user)
        reply = await self._pool.ask("GET", "/oauth2/start?rd=/")
        session.take(reply)
        if not self._expect("login start", reply, 302):
            return None
        reply = await at_development_provider(
            self._provider, reply.get("location"), user
        )
        back = urlsplit(reply.get("location"))
        target = f"{back.path}?{back.query}"
        reply = await self._pool.ask("GET", target, session.header)
        session.take(reply)
        if not self._expect("login callback", reply, 302):
            return None
        session.login_at = time.monotonic()
        return session

    async def _use(
        self, target: str, body: bytes = b"", method: str = "GET"
    ) -> tuple[str, Reply] | None:
        """Send a request with a session; return the user of an allowed one."""
        browser = await self._browser()
        if browser is None or browser.session is None:
            return None
        session, start = browser.session, time.monotonic()
        changed = session.changed_at
        reply = await self._pool.ask(
            method, target, session.header, body, kind="application/octet-stream"
        )
        session.take(reply)
        if session.changed_at != changed:
            self.counts["refreshed or touched cookie"] += 1
        if browser.session is not session:  # signed out meanwhile
            return None
        if reply.status < 300:
            self._must_last(browser, session, start)
            browser.used(start, f"{method} {target[:12]}")
            return session.user, reply
        browser.session = None
        self.counts["session ended"] += 1
        if self._expect(f"use of {target[:12]}", reply, 401, 403):
            self._may_end(browser)
        return None

    def _must_last(self, browser: Browser, session: Session, start: float) -> None:
        """Report a session that was allowed after its end."""
        limits = self._stage.lifetimes
        if start - browser.ended_at > limits.idle + LEEWAY:
            self._report("idle session allowed", f"{start - browser.ended_at:.1f} s")
        if start - session.login_at > limits.longest + LEEWAY:
            self._report("old session allowed", f"{start - session.login_at:.1f} s")

    def _may_end(self, browser: Browser) -> None:
        """Report a session that ended before its lifetimes."""
        now, limits = time.monotonic(), self._stage.lifetimes
        idle, age = now - browser.used_at, now - browser.login_started_at
        if idle < 0.9 * limits.idle - LEEWAY and age < limits.longest - LEEWAY:
            self._report(
                "session lost",
                f"idle {idle:.1f} s, age {age:.1f} s, last {browser.last_use}",
            )

    # Kinds of actions

    async def _check(self) -> None:
        found = await self._use("/oauth2/auth")
        if found is not None:
            user, reply = found
            if reply.get("x-auth-request-email") != f"{user}@example.com":
                self._report("wrong identity", reply.get("x-auth-request-email"))

    async def _get(self) -> None:
        await self._proxied(self._dice.randrange(SMALL), 0)

    async def _post(self) -> None:
        size = self._dice.randrange(MEDIUM)
        await self._proxied(self._dice.randrange(MEDIUM), 1 + size)

    async def _large(self) -> None:
        if self._dice.random() < 0.5:
            await self._proxied(self._dice.randrange(LARGE), 0)
        else:
            await self._proxied(0, 1 + self._dice.randrange(LARGE))

    async def _proxied(self, size: int, sent: int) -> None:
        path = f"/{size}/{self._dice.getrandbits(48):x}"
        found = await self._use(path, bytes(sent), "POST" if sent else "GET")
        if found is not None:
            self._check_proxied(*found, path, size, sent)

    def _check_proxied(
        self, user: str, reply: Reply | Answer, path: str, size: int, sent: int = 0
    ) -> None:
        fields = reply.headers if isinstance(reply, Answer) else dict(reply.fields)
        expected = (path, f"{user}@example.com", str(sent), size)
        found = (
            fields.get("x-seen-path"),
            fields.get("x-seen-email"),
            fields.get("x-seen-size"),
            len(reply.body),
        )
        if found != expected:
            self._report("wrong proxied response", f"{found} instead of {expected}")

    async def _anonymous(self) -> None:
        if self._dice.random() < 0.5:
            reply = await self._pool.ask("GET", "/oauth2/auth")
            self._expect("anonymous check", reply, 401)
        else:
            reply = await self._pool.ask("GET", "/0/anonymous")
            self._expect("anonymous page", reply, 403)

    async def _bad_cookie(self) -> None:
        value = f"{self._dice.getrandbits(512):x}|{int(time.time())}|x"
        reply = await self._pool.ask("GET", "/oauth2/auth", f"_oauth2_proxy={value}")
        self._expect("bad cookie", reply, 401)

    async def _sign_out(self) -> None:
        browser = await self._browser()
        if browser is None or browser.session is None:
            return
        session, browser.session = browser.session, None
        reply = await self._pool.ask("GET", "/oauth2/sign_out", session.header)
        if self._expect("sign-out", reply, 302):
            self._signed_out.append((time.monotonic(), session.header))
            del self._signed_out[:-MAX_SIGNED_OUT]

    async def _signed_out_check(self) -> None:
        if (
            self._signed_out
            and time.monotonic() - self._signed_out[0][0] > REVOKED_DELAY
        ):
            _, cookie = self._signed_out.pop(0)
            reply = await self._pool.ask("GET", "/oauth2/auth", cookie)
            self._expect("signed-out session", reply, 401)

    async def _abandoned_login(self) -> None:
        reply = await self._pool.ask("GET", f"/oauth2/start?rd=/{self._dice.random()}")
        self._expect("login start", reply, 302)

    async def _cut_upload(self) -> None:
        """Disconnect in the middle of a body."""
        browser = await self._browser()
        if browser is None or browser.session is None:
            return
        # A lost response must not have a new cookie.
        age = time.time() - browser.session.changed_at
        if age > self._stage.lifetimes.refresh / 2:
            return
        _, writer = await self._connect()
        head = (
            f"POST /0/cut HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {LARGE}\r\n"
            f"Cookie: {browser.session.header}\r\n\r\n"
        )
        writer.write(head.encode() + bytes(self._dice.randrange(MEDIUM)))
        await writer.drain()
        writer.transport.abort()
        browser.ended_at = time.monotonic()  # it may count as a use

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(LOOPBACK, self._stage.port, ssl=self._tls)

    async def _socket(self) -> None:
        """Exchange messages for up to twice the refresh interval."""
        browser = await self._browser()
        if browser is None or browser.session is None or self._is_full():
            return
        session = browser.session
        until = (
            time.monotonic() + 2 * self._dice.random() * self._stage.lifetimes.refresh
        )
        self._sockets += 1
        reader, writer = await self._connect()
        try:
            writer.write(HANDSHAKE % session.header.encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            if not head.startswith(b"HTTP/1.1 101"):
                if browser.session is session:
                    self._may_end(browser)
                return
            self.counts["WebSocket opened"] += 1
            session.take(Reply(101, fields_of(head), b""))
            while time.monotonic() < until and not self._stopping:
                writer.write(MESSAGE)
                echoed = await asyncio.wait_for(reader.readexactly(len(MESSAGE)), 20)
                self.counts["WebSocket message"] += 1
                browser.ended_at = time.monotonic()  # it may count as a use
                if echoed != MESSAGE:
                    self._report("wrong WebSocket message", repr(echoed))
                await asyncio.sleep(SOCKET_INTERVAL)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.counts["WebSocket closed by the server"] += 1
            if browser.session is session:
                self._may_end(browser)
        finally:
            self._sockets -= 1
            writer.transport.abort()

    def _is_full(self) -> bool:
        return self._sockets >= self._max_sockets

    async def _http2(self) -> None:
        """Send concurrent requests on an HTTP/2 connection."""
        browser = await self._browser()
        if browser is None or browser.session is None:
            return
        session, start = browser.session, time.monotonic()
        sizes = [self._dice.randrange(MEDIUM) for _ in range(4)]
        paths = [f"/{size}/{self._dice.getrandbits(48):x}" for size in sizes]
        answers = await asyncio.to_thread(self._ask_http2, paths, session.header)
        for path, size, answer in zip(paths, sizes, answers, strict=True):
            session.take(Reply(answer.status, list(answer.headers.items()), b""))
            if answer.status == 200:
                browser.used(start, "HTTP/2")
                self.counts["HTTP/2 response"] += 1
                self._check_proxied(session.user, answer, path, size)
            elif browser.session is session and self._expect(
                "HTTP/2", answer, 401, 403
            ):
                self._may_end(browser)

    def _ask_http2(self, paths: list[str], cookie: str) -> list[Answer]:
        with H2Client(self._stage.port, self._stage.certificate) as client:
            numbers = [
                client.send(path, ("cookie", cookie), authority=HOST) for path in paths
            ]
            return [client.answer(number) for number in numbers]


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """Return the header fields of a response head."""
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    return [(name.lower(), value.strip()) for name, _, value in pairs]
