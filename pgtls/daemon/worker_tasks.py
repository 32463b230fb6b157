"""What the daemon's workers are to do, made of its gateways."""

from __future__ import annotations

from collections.abc import Container, Mapping
from itertools import count

from OpenSSL import crypto

from pgtls.daemon.configuration import DaemonSettings
from pgtls.daemon.worker_pipe import SharedGateway, Task
from pgtls.gateway.gateway import Gateway
from pgtls.gateway.gateway_configuration import LoadedGateway
from pgtls.tls.loaded_keys import NO_KEYS
from pgtls.transport.reactor import IReactor


class WorkerTasks:
    """Makes tasks, and knows which files the workers have read.

    :param reactor: Twisted's reactor.
    :param directory: where the names of files count from.
    :ivar metrics_directory: where workers count for the status; empty where there is none.
    """

    def __init__(self, reactor: IReactor, directory: str) -> None:
        self._reactor = type(reactor).__module__
        self._directory = directory
        self.metrics_directory = ""
        self._number = count(1)
        self._revision = count(1)
        self._numbers: dict[Gateway, int] = {}
        self._revisions: dict[int, int] = {}

    def make(
        self,
        settings: DaemonSettings,
        served: Mapping[Gateway, LoadedGateway],
        read_again: Container[Gateway],
    ) -> tuple[Task, dict[int, int]]:
        """Make a task; see :meth:`in_use`.

        :param settings: the daemon's.
        :param served: the gateways, their ports open, each with what it is to be.
        :param read_again: those whose files are to be read again. Those of new ones always are.
        :returns: the task, and the listening sockets by the gateways' numbers. Nothing is accepted
            in this process any more.
        """
        revision = next(self._revision)
        gateways, sockets = [], {}
        for gateway, loaded in served.items():
            number = self._numbers.setdefault(gateway, next(self._number))
            sockets[number] = gateway.leave_port_to_workers()
            known = None if gateway in read_again else self._revisions.get(number)
            gateways.append(
                SharedGateway(
                    number, known or revision, loaded.configuration, _private_keys(loaded)
                )
            )
        task = Task(
            workers=settings.workers,
            gateways=tuple(gateways),
            directory=self._directory,
            state_dir=settings.state_dir,
            shutdown_timeout=settings.shutdown_timeout,
            reactor=self._reactor,
            metrics_directory=self.metrics_directory,
        )
        return task, sockets

    def in_use(self, task: Task) -> None:
        """The workers do what a task says.

        :param task: the task.
        """
        self._revisions = {gateway.number: gateway.revision for gateway in task.gateways}
        self._numbers = {g: n for g, n in self._numbers.items() if n in self._revisions}


def _private_keys(loaded: LoadedGateway) -> dict[str, bytes]:
    keys = loaded.tls.keys if loaded.tls is not None else NO_KEYS
    return {
        path: crypto.dump_privatekey(crypto.FILETYPE_PEM, each.key) for path, each in keys.items()
    }
