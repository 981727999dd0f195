"""Ranks that know when another one has died.

Every rank holds a line (a TCP connection) to rank 0. The system cuts it when a process ends, however it ends, and
keep-alive packets find a machine that has vanished. Rank 0 says who is gone and tells the others; nobody is left
waiting in an exchange that will never complete, where gloo and NCCL would wait for many minutes.
"""

import os
import secrets
import selectors
import socket
import sys
import threading
import time

import lightning

from jepa_pretrain.callbacks.stopping import Stopped
from jepa_pretrain.contracts import UserError

JOINING = 60.0  # seconds for all ranks to connect
GRACE = 10.0  # seconds for the main thread to end by itself once another rank is gone
CAUSE = 3.0  # seconds to wait for a better reason when an exchange fails


class Peers(lightning.Callback):
    """Ends the run within seconds, with one line that names the rank, when a rank dies or fails."""

    def __init__(self) -> None:
        self.lines: dict[int, socket.socket] = {}  # to other ranks: of rank 0 to all, of the others to rank 0
        self.names: dict[int, str] = {}
        self.reason: str | None = None  # why the run ends, once it does
        self.known = threading.Event()  # set with `reason`
        self.own: BaseException | None = None  # what ended this rank, where that is the reason
        self.finished = False  # this rank is done, and what others do is no fault

    def setup(self, trainer, module, stage: str) -> None:
        if trainer.world_size == 1:
            return
        self.rank = trainer.global_rank
        self._connect(trainer)
        os.register_at_fork(after_in_child=self._let_go)  # a data worker must not hold a dead rank's line
        threading.Thread(target=self._watch, daemon=True, name="peers").start()

    def _connect(self, trainer) -> None:
        server = socket.create_server(("", 0), backlog=trainer.world_size) if self.rank == 0 else None
        mine = (server.getsockname()[1], secrets.token_hex(16), _whereabouts()) if server else None
        port, secret, where = trainer.strategy.broadcast(mine)
        if server:
            with server:
                self._accept(server, secret, trainer.world_size)
            return
        address = (trainer.strategy.cluster_environment.main_address, port)
        try:
            line = socket.create_connection(address, timeout=JOINING)
        except OSError as error:
            raise UserError(f"rank {self.rank} cannot reach rank 0 at {address[0]}:{port}: {error}") from error
        line.sendall(f"{secret} {self.rank} {_whereabouts()}\n".encode())
        self.lines, self.names = {0: line}, {0: f"rank 0 ({where})"}
        _keep_alive(line)

    def _accept(self, server: socket.socket, secret: str, world: int) -> None:
        """Take one line from each other rank; connections without the secret are strangers'."""
        end = time.monotonic() + JOINING
        while len(self.lines) < world - 1:
            server.settimeout(max(end - time.monotonic(), 0.01))
            try:
                line, _ = server.accept()
            except TimeoutError as error:
                missing = sorted(set(range(1, world)) - set(self.lines))
                raise UserError(f"ranks {missing} did not connect to rank 0 within {JOINING:.0f} s") from error
            line.settimeout(JOINING)
            words = _read(line).split(maxsplit=2)
            if len(words) != 3 or not secrets.compare_digest(words[0], secret):
                line.close()
                continue
            rank = int(words[1])
            self.lines[rank], self.names[rank] = line, f"rank {rank} ({words[2]})"
            _keep_alive(line)

    def _let_go(self) -> None:
        for line in self.lines.values():
            line.close()

    def _watch(self) -> None:
        """Wait for words from the others, or for the end of a line."""
        with selectors.DefaultSelector() as selector:
            for rank, line in self.lines.items():
                selector.register(line, selectors.EVENT_READ, rank)
            while selector.get_map() and self.reason is None and not self.finished:
                for key, _ in selector.select():
                    words = _read(key.fileobj)
                    if words == "done" or self.finished:
                        selector.unregister(key.fileobj)
                    elif self.reason is None:
                        self._end(words, self.names[key.data])
        if self.reason is not None:
            time.sleep(GRACE)  # as a rule the main thread ends before, since its exchange with the others fails
            os._exit(1)

    def _end(self, words: str, name: str) -> None:
        """Say why the run ends, once, and tell the others. Without words, rank `name` is gone."""
        self.reason = words or f"{name} died"
        if not words:
            print(f"error: {self.reason}: the run ends; go on with --ckpt_path last", file=sys.stderr, flush=True)
        elif self.rank == 0:
            print(f"error: {self.reason}", file=sys.stderr, flush=True)
        self._tell(self.reason)
        self.known.set()

    def _tell(self, words: str) -> None:
        for line in self.lines.values():
            try:
                line.sendall(f"{' '.join(words.split())}\n".encode())
            except OSError:  # that one is gone as well
                continue

    def on_exception(self, trainer, module, exception: BaseException) -> None:
        """Tell the others why this rank ends, unless it ends because of them."""
        if not self.lines:
            return
        if isinstance(exception, Stopped | KeyboardInterrupt | SystemExit):
            self._finish()
            return
        if isinstance(exception, RuntimeError):  # as gloo and NCCL report that another rank is gone
            self.known.wait(CAUSE)
        if self.reason is not None:
            return
        self.own = exception
        words = f"rank {self.rank} failed: {exception if isinstance(exception, UserError) else repr(exception)}"
        if self.rank == 0:
            self.reason = words
        self._tell(words)
        if self.rank > 0:  # rank 0 says so and answers; until then a launcher that sees this end might kill it
            self.known.wait(GRACE)

    def on_fit_end(self, trainer, module) -> None:
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._tell("done")

    def has_said(self, error: RuntimeError | UserError) -> bool:
        """Whether the reader knows already why this rank ends: another said it, or said the same."""
        if self.reason is None or (self.rank == 0 and error is self.own):
            return False
        return " ".join(str(error).split()) in self.reason if isinstance(error, UserError) else error is not self.own


def _read(line: socket.socket) -> str:
    """One line of words; none where the other end is gone."""
    words = b""
    try:
        while not words.endswith(b"\n") and (part := line.recv(1)):
            words += part
    except OSError:
        return ""
    return words.decode(errors="replace").strip() if words.endswith(b"\n") else ""


def _whereabouts() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _keep_alive(line: socket.socket) -> None:
    """Notice a machine that has vanished within half a minute."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)  # seconds of silence before the first packet
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
