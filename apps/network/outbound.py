"""The only way from here to another deployment.

The host is resolved once, the address checked, and the connection made to that very address (Host and SNI keep the
name), so that a name that resolves differently a moment later gains nothing. No redirects, no proxies from the
environment, no compression, a deadline over everything and a cap on the answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import httpx
from django.conf import settings

from gridclient.wire.errors import ConnectionLostError, InvalidInputError, LimitExceededError

DEADLINE = 10.0
CONNECT = 3.0
MAX_ANSWER = 2**20

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Reply:
    """`date`: when it was sent, by the clock of who sent it, as HTTP writes it."""

    status: int
    body: bytes
    date: str = ""


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, seen through every form that hides an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def _resolve(host: str, port: int) -> str:
    """One address of the host that may be called. Raises InvalidInputError when there is a forbidden one."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    shown = f"[{host}]" if ":" in host else host
    # All of them: a name with one public and one private address is a trick, not a host.
    allowed = {entry.lower() for entry in settings.GRID_OUTBOUND_ALLOW}
    if f"{shown}:{port}".lower() not in allowed and not all(is_public(ipaddress.ip_address(a)) for a in addresses):
        raise InvalidInputError(
            f"{shown}:{port} is not on the public internet. If it is yours, add it to GRID_OUTBOUND_ALLOW."
        )
    return addresses[0]


async def _call(method: str, url: httpx.URL, body: bytes, headers: Mapping[str, str], cap: int) -> Reply:
    port = url.port or (443 if url.scheme == "https" else 80)
    address = await _resolve(url.host, port)
    async with httpx.AsyncClient(
        verify=_tls() if url.scheme == "https" else False,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(DEADLINE, connect=CONNECT),
    ) as client:
        request = client.build_request(
            method,
            url.copy_with(host=address),
            content=body or None,
            headers={
                **headers,
                "Host": url.netloc.decode(),
                "Accept-Encoding": "identity",
                "Accept": "application/json",
            },
            extensions={"sni_hostname": url.host},
        )
        response = await client.send(request, stream=True)
        try:
            content = bytearray()
            # Raw: a compressed answer could not unfold here, however it is labelled.
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > cap:
                    raise LimitExceededError(f"{url.host} answered with more than {cap} bytes.", limit=cap)
        finally:
            await response.aclose()
        return Reply(response.status_code, bytes(content), response.headers.get("date", ""))


async def call(
    method: str,
    url: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    deadline: float = DEADLINE,
    cap: int = MAX_ANSWER,
) -> Reply:
    """One request, whatever its status. `deadline` in seconds covers all of it, names included.

    Raises InvalidInputError (a URL that may not be called), ConnectionLostError, LimitExceededError.
    """
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise InvalidInputError("That is not a URL.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise InvalidInputError("Only http:// and https:// URLs without a user name are called.")
    try:
        async with asyncio.timeout(deadline):
            return await _call(method, parsed, body, headers or {}, cap)
    except (TimeoutError, httpx.TimeoutException):
        raise ConnectionLostError(f"{parsed.host} did not answer within {deadline:g} seconds.") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise ConnectionLostError(f"{parsed.host} cannot be reached ({type(error).__name__}).") from None
