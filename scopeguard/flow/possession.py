"""Proof of possession: check that the sender of a request holds the key to which its token is bound.

It is a DPoP key (RFC 9449 §7), or the key of a client certificate (RFC 8705 §3).

The steps are those of RFC 9449 §4.3. The proof is remembered last, when everything else is right, so that a forged
proof cannot use up the identifier of a real one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, cast
from urllib.parse import quote

from scopeguard.config.dpop import DPoP
from scopeguard.config.dpop_mode import DPoPMode
from scopeguard.config.mutual_tls import CertificateSource, MutualTLS
from scopeguard.errors import AuthorityUnavailable, InvalidProof, InvalidToken, NonceRequired
from scopeguard.flow.credentials import Credential
from scopeguard.flow.effects import Clock, Flow, ProofStore, Store, UseStore, ask
from scopeguard.reasons import Reason
from scopeguard.request import RequestView
from scopeguard.spec.certificate_fields import from_field
from scopeguard.spec.dpop import Proof, check_proof, single_proof
from scopeguard.spec.nonce import NonceSealer
from scopeguard.spec.request_uri import PATH_CHARACTERS, normalise_path
from scopeguard.spec.sender_constraint import certificate_of, thumbprint_of
from scopeguard.state.proofs import Claim, ProofLimits, ProofMemory
from scopeguard.tokens import AccessToken

_MEMORY: Final = "the memory of used proofs"
_ORIGIN: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9+.\-]*://[^/]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Possession:
    """What the checks of proofs share: the policy, the origin of this API, the nonces and the used proofs.

    ``mode`` is that of routes without a mode of their own. ``origin`` is ``scheme://host[:port]`` in normal form,
    ``prefix`` what a proxy removes from paths. ``sealer`` is ``None`` if no nonces are used. Used proofs are in
    ``memory``, or in the shared store with ``shared``. ``certificates`` says where those of clients are found.
    """

    policy: DPoP
    mode: DPoPMode = DPoPMode.ALLOWED
    origin: str
    prefix: str = ""
    sealer: NonceSealer | None = field(default=None, repr=False)
    memory: ProofMemory = field(repr=False)
    shared: bool = False
    certificates: MutualTLS | None = None

    def for_issuers(self) -> Possession:
        """Return a copy for issuers with modes of their own, which need the scheme ``DPoP`` even if ``mode`` is off."""
        return replace(self, mode=DPoPMode.ALLOWED) if self.mode is DPoPMode.OFF else self


def check_possession(
    access: AccessToken,
    credential: Credential,
    request: RequestView,
    record_mode: DPoPMode | None,
    rule_mode: DPoPMode | None,
    possession: Possession,
    clock: Clock,
) -> Flow[None]:
    """Check that the sender of *request* holds the key to which *access* is bound.

    A token that is bound to a DPoP key needs the scheme ``DPoP`` and a proof. Any other token with that scheme is
    refused. The modes of the issuer and of the rule decide whether an unbound token is accepted at all; *rule_mode*
    comes first.

    Raises :class:`InvalidToken`, :class:`InvalidProof`, :class:`NonceRequired`, and :class:`AuthorityUnavailable` if
    the store of used proofs does not answer or their memory is full.
    """
    jkt, bound_certificate = thumbprint_of(access.claims), certificate_of(access.claims)
    if bound_certificate is not None and bound_certificate != find_certificate(request, possession.certificates):
        # RFC 8705 §3: "the protected resource MUST reject the resource access attempt with an HTTP 401 status code and
        # the "invalid_token" error code."
        found = find_certificate(request, possession.certificates) or "none"
        raise InvalidToken(Reason.WRONG_CERTIFICATE, bound_to=bound_certificate, found=found)
    if bound_certificate is not None and request.certificate is None and request.proofs is not None:
        request.proofs.vary = None if possession.certificates is None else possession.certificates.header
    modes = (rule_mode,) if rule_mode is not None else (record_mode, possession.policy.mode)
    if not credential.is_dpop:
        # RFC 9449 §7.2: a resource server "MUST reject a DPoP-bound access token received as a bearer token".
        if jkt is not None:
            raise InvalidToken(Reason.SENDER_CONSTRAINT_UNPROVEN, cnf="jkt", scheme="Bearer", expected="DPoP")
        if bound_certificate is None and DPoPMode.REQUIRED in modes:
            raise InvalidToken(Reason.SENDER_CONSTRAINT_MISSING, cnf="absent", setting='dpop="required"')
        return
    policy, now = possession.policy, clock.wall()
    proofs = request.headers.get_all("dpop")
    if not proofs:
        mode = DPoPMode.REQUIRED if DPoPMode.REQUIRED in modes else DPoPMode.ALLOWED
        raise InvalidProof(Reason.PROOF_MISSING, bound="no" if jkt is None else "to a key", mode=mode.value)
    proof = check_proof(
        single_proof(proofs, policy.max_proof_bytes),
        policy=policy,
        method=request.method,
        uri=request_uri(request, possession),
        token=credential.token,
        jkt=jkt,
        now=now,
    )
    nonce_time = check_nonce(proof, request, possession, now)
    # A second check of the same request is not a replay. A guard with another memory of proofs claims the proof there.
    claimed = (None if possession.shared else id(possession.memory), proof.identity)
    notes = request.proofs
    if notes is not None and claimed in notes.accepted:
        return
    yield from claim_once(proof, access, possession, clock, nonce_time)
    if notes is not None:
        notes.accepted.add(claimed)


def find_certificate(request: RequestView, certificates: MutualTLS | None) -> str | None:
    """Return the thumbprint of the client's certificate, or ``None`` if no trusted certificate is found.

    The certificate of the connection comes first. A header field is read only if a configured proxy sent it.
    """
    if request.certificate is not None or certificates is None or certificates.header is None:
        return request.certificate
    if not certificates.trusts(request.client):
        return None
    source = CertificateSource(certificates.source)
    return from_field(request.headers.get_all(certificates.header), source)


def request_uri(request: RequestView, possession: Possession) -> str:
    """Return the URI of *request* as its client sees it, in normal form and without its query.

    The origin is configured. The path is the raw one, so that ``%2F`` is not taken for a slash. For a target that does
    not begin with a slash, as in ``OPTIONS *``, the result is ``*``, which no ``htu`` equals.
    """
    raw = request.raw_path
    path = (
        quote(request.path, safe=PATH_CHARACTERS, errors="surrogatepass")
        if raw is None
        else raw.partition(b"?")[0].decode("latin-1")
    )
    # A target may have the absolute form of a request to a proxy (RFC 9112 §3.2.2).
    path = _ORIGIN.sub("", path)
    if path and not path.startswith("/"):  # after the origin, it would be part of the host
        return "*"
    return possession.origin + normalise_path(possession.prefix + path)


def check_nonce(proof: Proof, request: RequestView, possession: Possession, now: float) -> float | None:
    """Check the nonce of *proof* and return its time, ``None`` if nonces are off. Note a new one for the response if it
    is due.

    A wrong nonce is answered exactly as a missing one. Raises :class:`NonceRequired`.
    """
    sealer = possession.sealer
    if sealer is None:
        return None
    issued_at = sealer.issued_at(proof.nonce, now)
    if issued_at is None:
        raise NonceRequired(Reason.PROOF_NONCE, nonce=sealer.issue(now))
    if request.proofs is not None and sealer.is_due(issued_at, now):
        request.proofs.nonce = sealer.issue(now)
    return issued_at


def claim_once(
    proof: Proof, access: AccessToken, possession: Possession, clock: Clock, nonce_time: float | None
) -> Flow[None]:
    """Remember *proof*, sent with *access*, until it has expired. *nonce_time* is the time in its nonce.

    Raises :class:`InvalidProof` if it was used before. Also raises it if proofs of the same age are already forgotten,
    which means that the clock was set back.
    """
    policy, memory, now = possession.policy, possession.memory, clock.monotonic()
    # The proof may be accepted until its iat, which may be in the future, is too old: one second more than that.
    window, issued_at = policy.max_age + policy.max_skew, proof.issued_at
    if policy.trust_nonce_time and nonce_time is not None:
        window, issued_at = policy.nonce_lifetime * 2, nonce_time
    seconds = window + 1.0
    if issued_at <= memory.newest_forgotten(now):
        raise InvalidProof(Reason.PROOF_EXPIRED, problem="the clock was set back")
    named = json.dumps([access.issuer, access.subject, access.client_id if access.subject is None else None])
    holder = sha256(named.encode())
    if possession.shared:
        try:
            answer = yield from ask(UseStore(_claim_in_store(proof, holder.hexdigest(), seconds, memory.limits)))
        except AuthorityUnavailable:
            if policy.replay_fail_open_dangerously:
                return
            raise
        claim = Claim(answer)
    else:
        claim = memory.claim(proof.identity, proof.thumbprint, now, seconds, holder=holder.digest())
    if claim is Claim.USED:
        raise InvalidProof(Reason.PROOF_USED, age=f"{clock.wall() - proof.issued_at:.0f} s")
    if claim is Claim.FULL:
        raise AuthorityUnavailable(Reason.PROOF_MEMORY_FULL, _MEMORY, retry_after=window)
    memory.note(issued_at, now, seconds)


def _claim_in_store(proof: Proof, holder: str, seconds: float, limits: ProofLimits) -> Callable[[Store], str]:
    def claim(store: Store) -> str:
        # The constructor of the guard has checked that the store has this method.
        return cast(ProofStore, store).claim(
            proof.identity,
            proof.thumbprint,
            holder=holder,
            seconds=seconds,
            total=limits.total,
            per_owner=limits.per_owner,
            per_holder=limits.per_holder,
        )

    return claim
