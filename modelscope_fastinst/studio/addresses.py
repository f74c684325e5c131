"""Addresses that a server listens on."""
from __future__ import annotations

import ipaddress
import socket


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on this address."""
    if host.lower() == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:   # a name; who knows where it leads
        return False


def free_port(host: str) -> int:
    """A port of this address that nobody listens on."""
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((host.strip('[]'), 0))
        return one.getsockname()[1]
