"""My side of the conversation with a node: what the user's threads queue, ask and wait for.

Nothing is sent before something must be: the connection opens at the first question or upload, so that looking at
search results needs no session. A lost socket is replaced meanwhile (`reconnect`), and who waits waits on.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from gridclient import settings
from gridclient.dialogue import Ask, Dialogue
from gridclient.failures import RestartedError, again, silent
from gridclient.lineage import Known
from gridclient.loop import background, run
from gridclient.outbox import Appended
from gridclient.program.graph import Node, Ref
from gridclient.progress import Progress, waited
from gridclient.reconnect import FINAL, Reconnection, greet
from gridclient.transfers import Buffer, Outgoing
from gridclient.wire import messages as m
from gridclient.wire.errors import ConnectionLostError, GridError

T = TypeVar("T")
FLUSH_AT = 48
"""Nodes that wait before they are sent: few enough that the node works while the user's code still records."""
FLUSH_AFTER = 0.003


class Connection:
    """Methods without underscore may be called from any thread; they raise GridError."""

    def __init__(self, sign_in: Callable[[], tuple[str, str]]) -> None:
        """`sign_in` gives (url, token) and is called once, at the first need."""
        self._sign_in = sign_in
        self._loop = background()
        self._asks, self._transfers = itertools.count(1), itertools.count(1)
        self._dialogue = Dialogue(lambda: next(self._transfers), self._reopen)
        self._reconnection = Reconnection(self._dialogue)
        self._outbox = self._dialogue.outbox
        self._opening = threading.Lock()
        self._token = ""
        self._armed = self._flushing = False

    def append(self, node: Node, held: Sequence[Ref] = ()) -> None:
        """Queue a node of the program; `held`: its values, where it takes several ids."""
        self._outbox.queue.append(Appended(node, held))
        if self._dialogue.socket is not None:
            if len(self._outbox.queue) >= FLUSH_AT:
                if not self._flushing:
                    self._flushing = True
                    self._loop.call_soon_threadsafe(self._flush)
            elif not self._armed:
                self._armed = True
                self._loop.call_soon_threadsafe(self._loop.call_later, FLUSH_AFTER, self._tick)

    def constant(self, digest: str, header: m.TensorHeader, data: bytes | memoryview) -> None:
        """Queue a constant that later nodes name, and begin to upload a long one. Those nodes wait for it; this call
        does not."""
        constant = Known(digest, header, data)
        self._outbox.queue.append(constant)
        if not constant.inline and not self._outbox.knows(constant):
            self._loop.call_soon_threadsafe(self._dialogue.begin, constant)

    def drop(self, ref: Ref) -> None:
        """The value is held no longer. Travels with the next batch."""
        self._outbox.drops.append(ref)

    def upload(self, parts: Sequence[Buffer], purpose: str, label: str) -> int:
        """Upload the bytes of all parts and wait for their arrival; returns the transfer's number."""
        self.open()
        outgoing = Outgoing(next(self._transfers), parts, purpose)
        self._loop.call_soon_threadsafe(self._dialogue.start, outgoing)
        bar = Progress(label, outgoing.nbytes)
        try:
            outgoing.wait(settings.timeout, bar.show)
            return outgoing.command.transfer
        finally:
            bar.end()

    def whole(self, steps: Callable[[int], T]) -> T:
        """`steps(era)`: uploads, and an ask that depends on them. All again where the session is lost in between."""
        while True:
            with contextlib.suppress(RestartedError):
                return steps(self._dialogue.era)

    def ask(self, make: Callable[[int], m.ClientCommand], era: int | None = None) -> m.NodeCommand:
        """Ask a question, `make(number)`, after everything queued so far, and wait for the reply to it.

        `era`: of the uploads that it depends on, see `whole`.
        """
        return self._ask(make, era)[1]

    def value(self, make: Callable[[int], m.ClientCommand]) -> tuple[m.Answer, bytearray]:
        """Ask for a value: the answer and its bytes, writable."""
        return self.whole(lambda _: self._value(make))

    def open(self) -> m.Welcome:
        """Be connected and welcomed. Raises AuthenticationError, VersionMismatchError, ConnectionLostError."""
        dialogue = self._dialogue
        if dialogue.welcome is None:
            with self._opening:
                if dialogue.welcome is None and dialogue.failure is None:
                    dialogue.url, self._token = self._sign_in()
                    try:
                        run(greet(dialogue, dialogue.url, self._token), self._loop)
                    except FINAL as error:
                        dialogue.fail(error)
        self._check()
        assert dialogue.welcome is not None
        return dialogue.welcome

    def close(self) -> None:
        """Say goodbye and end the session. Closing twice is closing once."""
        closed = ConnectionLostError("This connection was closed; connect again.")
        with self._opening:
            if self._dialogue.welcome is not None and self._dialogue.failure is None:
                with contextlib.suppress(TimeoutError):
                    run(self._close(closed), self._loop, 3.0)
            self._dialogue.fail(closed)

    @property
    def lost(self) -> bool:
        """Whether the session has ended."""
        return self._dialogue.failure is not None

    @property
    def reconnecting(self) -> bool:
        """Whether the socket was lost and may yet come back."""
        lost = self._dialogue.socket is None and self._dialogue.failure is None
        return lost and self._reconnection.under_way

    def _value(self, make: Callable[[int], m.ClientCommand]) -> tuple[m.Answer, bytearray]:
        ask, answer = self._ask(make)
        if not isinstance(answer, m.Answer):
            raise ConnectionLostError("The node answered something else than a value.")
        if answer.data is not None:
            return answer, bytearray(answer.data)
        assert ask.incoming is not None
        bar = Progress("receiving", len(ask.incoming.buffer))
        try:
            return answer, ask.incoming.wait(settings.timeout, bar.show)
        finally:
            bar.end()

    def _ask(self, make: Callable[[int], m.ClientCommand], era: int | None = None) -> tuple[Ask, m.NodeCommand]:
        self.open()
        number = next(self._asks)
        ask = self._dialogue.asks[number] = Ask(make(number), era)
        try:
            # After it was entered: a session that ends now or earlier is noticed either way.
            self._check()
            if era not in (None, self._dialogue.era):
                raise RestartedError
            self._outbox.queue.append(ask.command)
            self._loop.call_soon_threadsafe(self._flush)
            answer = waited(ask.reply, settings.timeout, self._doing)
        except TimeoutError:
            raise silent() from None
        except GridError:
            self._raise_earlier()
            raise
        finally:
            # An interrupted wait leaves nothing: the reply finds nobody, and its chunks are thrown away.
            self._dialogue.asks.pop(number, None)
        self._raise_earlier()
        return ask, answer

    def _raise_earlier(self) -> None:
        """Raise what went wrong outside of any question since the last one."""
        error, self._dialogue.error = self._dialogue.error, None
        if error is not None:
            raise error

    def _check(self) -> None:
        if self._dialogue.failure is not None:
            raise again(self._dialogue.failure)

    def _doing(self) -> str:
        if not self.reconnecting:
            return "waiting for the node"
        return f"reconnecting to {self._dialogue.url} (attempt {self._reconnection.attempt})"

    # --- on the loop --------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flushing = False
        self._dialogue.flush()

    def _tick(self) -> None:
        self._armed = False
        self._dialogue.flush()

    def _reopen(self, why: GridError) -> None:
        self._reconnection.begin(self._dialogue.url, self._token, why)

    async def _close(self, closed: GridError) -> None:
        self._reconnection.cancel()
        await self._dialogue.close(closed)
