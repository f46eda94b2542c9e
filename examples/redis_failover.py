"""What `replicas` in `[store]` guarantees: a used proof of possession that no replica has is not accepted.

    pip install ".[redis]"
    python examples/redis_failover.py       # needs redis-server; starts a primary and a replica on loopback

Requests are sent while the replica works, while it is stopped, and when it works again. Then it becomes the primary, as
in a failover. It knows the proofs of all accepted requests.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time

import redis

from scopeguard import DPoP, Granted, Guard, HeaderList, RequestView
from scopeguard.stores.redis import RedisStore
from scopeguard.testing import FakeAuthority, ProofKey


def start(folder: str, *settings: str) -> tuple[subprocess.Popen[bytes], redis.Redis]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", *settings]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - a fixed command
    return process, redis.Redis(port=port)


def wait_for_replica(primary: redis.Redis) -> None:
    """Wait until the replica confirms a write."""
    while True:
        try:
            if primary.pipeline(transaction=False).set("example", "", px=1).wait(1, 100).execute()[1]:
                return
        except redis.ConnectionError:
            time.sleep(0.05)  # it is not up yet


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        first, primary = start(folder, "--repl-diskless-sync", "no")
        port = primary.connection_pool.connection_kwargs["port"]
        second, replica = start(other, "--replicaof", f"127.0.0.1 {port}")
        wait_for_replica(primary)

        authority, key = FakeAuthority(), ProofKey()
        store = RedisStore(f"redis://127.0.0.1:{port}", replicas=1)
        guard = Guard(
            authority.issuer,
            resource=authority.audience,
            dpop=DPoP(mode="required"),
            store=store,
            transport=authority.transport,
            clock=authority.clock,
            audit="off",
        )
        token = authority.mint("rows.read", bound_to=key)

        def send(proof: dict[str, str]) -> str:
            fields = [(name.lower().encode(), value.encode()) for name, value in proof.items()]
            decision = guard.check(RequestView(method="GET", path="/rows", headers=HeaderList(fields)))
            return "accepted" if isinstance(decision, Granted) else str(decision.response.status)

        def sign() -> dict[str, str]:
            return key.headers(token, "GET", f"{authority.audience}/rows", at=authority.clock.wall())

        try:
            proof = sign()
            print("with the replica:", send(proof))
            print("the same proof again:", send(proof))
            os.kill(second.pid, signal.SIGSTOP)
            print("while the replica is stopped:", send(sign()))
            os.kill(second.pid, signal.SIGCONT)
            wait_for_replica(primary)
            print("with the replica again:", send(sign()))
            first.kill()
            replica.replicaof("NO", "ONE")
            key_name = next(name for name in replica.scan_iter("scopeguard:{proofs}:key:*"))
            print("the new primary knows", replica.zcard(key_name), "used proofs")
        finally:
            guard.close()
            for process, client in ((first, primary), (second, replica)):
                client.close()
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
