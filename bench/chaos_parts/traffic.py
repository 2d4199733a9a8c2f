"""The traffic: sessions in constant use, and the check of every response."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from chaos_parts.client import CutError, Pool, Reply
from chaos_parts.sign_in import SignIn

MAX_IN_FLIGHT = 400
UNAVAILABLE = (502, 503, 504)
SIGN_OUTS = 0.004  # of all requests
REVOKED_DELAY = 3.0  # seconds after which a signed-out session must be rejected
MAX_EXAMPLES = 20  # of each kind of problem in the report


@dataclass(eq=False)
class Session:
    """A user's browser: its cookies, and when it last got new ones."""

    user: str
    cookies: dict[str, str] = field(default_factory=dict)
    login_at: float = 0.0
    changed_at: float = 0.0
    clock: float = 0.0  # offset of the clock when its cookie was made

    def take(self, reply: Reply) -> bool:
        """Apply Set-Cookie; return whether a session cookie was cleared."""
        cleared = False
        for name, value in reply.fields:
            if name != "set-cookie":
                continue
            pair, _, attributes = value.partition(";")
            key, _, text = pair.partition("=")
            if not text or "max-age=0" in attributes.lower():
                cleared |= "csrf" not in key and key in self.cookies
                self.cookies.pop(key, None)
            else:
                self.cookies[key] = text
                self.changed_at = time.time()
        return cleared

    @property
    def header(self) -> str:
        """The Cookie field."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())


class Traffic:
    """Uses the sessions at a fixed rate until it is stopped."""

    def __init__(
        self, port: int, provider: int, sign_in: SignIn, users: int, seed: int
    ) -> None:
        self.gateway, self.provider = Pool(port), Pool(provider)
        self._sign_in = sign_in
        self.random = random.Random(seed)
        self.users = [f"user-{number}" for number in range(users)]
        self.sessions: list[Session] = []
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.failures: deque[tuple[float, float]] = deque(maxlen=200_000)
        self.slow: deque[tuple[float, float]] = deque(maxlen=200_000)
        self.signed_out: deque[tuple[float, str]] = deque(maxlen=500)
        self.clock = 0.0
        self.active: list[str] = []  # names of the current faults, for examples
        self.lost: list[tuple[float, Session, float]] = []  # with the clock then
        self._tasks: set[asyncio.Task[None]] = set()

    async def fill(self, count: int) -> None:
        """Create *count* sessions."""
        gate = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with gate:
                session = await self.log_in(self.users[number % len(self.users)])
                if session is None:
                    raise SystemExit(
                        f"a login before any fault failed: {self.examples}"
                    )
                self.sessions.append(session)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Send *rate* requests per second until *stop*."""
        start, sent = time.monotonic(), 0
        while not stop.is_set():
            await asyncio.sleep(0.01)
            due = int((time.monotonic() - start) * rate)
            if due - sent > rate:  # this process was late; do not make up for it
                sent = due - 1
            while sent < due:
                sent += 1
                if len(self._tasks) < MAX_IN_FLIGHT:
                    task = asyncio.create_task(self._once())
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def log_in(self, user: str) -> Session | None:
        """Return a new session; None if the login failed."""
        session = Session(user, clock=self.clock)
        try:
            reply = await self.gateway.ask("GET", "/oauth2/start?rd=/")
            session.take(reply)
            if reply.status != 302:
                return self._login_failed("start", reply)
            location = reply.get("location")
            reply = await self._sign_in(self.provider, location, user)
            if not reply.get("location"):
                self.counts[f"login not possible: provider {reply.status}"] += 1
                return None
            back = urlsplit(reply.get("location"))
            target = f"{back.path}?{back.query}"
            reply = await self.gateway.ask("GET", target, session.header)
            session.take(reply)
        except (CutError, OSError, TimeoutError) as error:
            self.counts[f"login not possible: {type(error).__name__}"] += 1
            return None
        if reply.status != 302:
            return self._login_failed("callback", reply)
        # A lost login state or a used code starts the login again.
        if not any("csrf" not in name for name in session.cookies):
            self.counts["login started again"] += 1
            return None
        session.login_at = time.time()
        return session

    def _login_failed(self, where: str, reply: Reply) -> None:
        known = reply.status in (*UNAVAILABLE, 403, 429)
        kind = "login not possible" if known else "undocumented login response"
        self._count(f"{kind}: {where} {reply.status}", reply.body[:2000].decode())

    async def _once(self) -> None:
        dice = self.random.random()
        if self.signed_out and dice < SIGN_OUTS:
            await self._check_signed_out()
            return
        number = self.random.randrange(len(self.sessions))
        session = self.sessions[number]
        if dice > 1 - SIGN_OUTS or not session.cookies:
            await self._replace(number, session)
            return
        await self._use(number, session, dice)

    async def _replace(self, number: int, session: Session) -> None:
        """Sign a session out, and start another one in its place."""
        new = await self.log_in(session.user)
        if new is None or self.sessions[number] is not session:
            return
        self.sessions[number] = new
        if not session.cookies:
            return
        cookie = session.header
        try:
            reply = await self.gateway.ask("GET", "/oauth2/sign_out", cookie)
        except (CutError, OSError, TimeoutError):
            return
        if reply.status == 302:
            self.signed_out.append((time.monotonic(), cookie))

    async def _check_signed_out(self) -> None:
        ended, cookie = self.signed_out[0]
        if time.monotonic() - ended < REVOKED_DELAY:
            return
        self.signed_out.popleft()
        try:
            reply = await self.gateway.ask("GET", "/oauth2/auth", cookie)
        except (CutError, OSError, TimeoutError):
            return
        if reply.status < 300:
            self._count("signed-out session accepted", cookie[:40])

    async def _use(self, number: int, session: Session, dice: float) -> None:
        start, cookie = time.monotonic(), session.header
        is_check = dice < 0.5
        nonce = f"{self.random.getrandbits(64):x}"
        body = b"x" * self.random.randrange(1, 20_000) if dice > 0.95 else b""
        method = "POST" if body else "GET"
        target = "/oauth2/auth" if is_check else f"/{nonce}"
        try:
            reply = await self.gateway.ask(
                method, target, cookie, body if not is_check else b"", kind="text/plain"
            )
        except (CutError, OSError, TimeoutError) as error:
            self.failures.append((start, time.monotonic()))
            self._count(f"no response: {type(error).__name__}", repr(error))
            return
        end = time.monotonic()
        if end - start > 2.0:
            self.slow.append((start, end))
        changed = session.changed_at
        cleared = session.take(reply)
        if session.changed_at != changed:
            session.clock = self.clock
        self.counts[f"status {reply.status}"] += 1
        if reply.status in UNAVAILABLE:
            self.failures.append((start, end))
        elif reply.status in (302, 401, 403) or cleared:  # 403: the sign-in page
            if session is self.sessions[number] and session.cookies:
                self._lose(session, reply)
        elif reply.status >= 300:
            self._count(
                f"undocumented status {reply.status}", reply.body[:300].decode()
            )
        else:
            self._check_identity(session, reply, "" if is_check else f"/{nonce}")

    def _lose(self, session: Session, reply: Reply) -> None:
        age = time.time() - session.login_at
        self._count(
            "session lost",
            f"{session.user} status {reply.status}, login {age:.0f} s ago, "
            f"cookie {time.time() - session.changed_at:.0f} s ago, "
            f"clock {session.clock:+.0f} -> {self.clock:+.0f}",
        )
        self.lost.append((time.time(), session, self.clock))
        session.cookies.clear()

    def _check_identity(self, session: Session, reply: Reply, path: str) -> None:
        expected = f"{session.user}@example.com"
        if not path:
            found, seen = reply.get("x-auth-request-email"), ""
        else:
            try:
                document = json.loads(reply.body)
                found, seen = document["email"], document["path"]
            except (ValueError, KeyError):
                self._count("unreadable response", repr(reply.body[:100]))
                return
        if found != expected:
            self._count("wrong identity", f"{found!r} instead of {expected!r}")
        elif seen != path:
            self._count("response to another request", f"{seen!r} for {path!r}")

    def _count(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            now = time.strftime("%H:%M:%S")
            examples.append(f"{now} [{', '.join(self.active)}] {example}")
