"""Kinds of settings that are more than a number or a text: how they are written, and what is refused."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

from model.package import ZOO

# as browsers send it: a scheme's own port is left out, and any other text would never be met
_ORIGIN = r"(http(?!s)(?!.*:80$)|https(?!.*:443$))://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[1-9]\d{0,4})?"


def _none_or_enough(megabytes: int) -> int:
    if megabytes and megabytes < 128:
        raise PydanticCustomError("memory_budget", "Input should be 0 or at least 128")
    return megabytes


def _device_list(text: str) -> str:
    numbers = [number.strip() for number in text.split(",")]
    if numbers == ["all"]:
        return "all"
    if not all(re.fullmatch("[0-9]{1,4}", number) for number in numbers):
        raise PydanticCustomError("devices", "Input should be numbers of GPUs with commas between, or all")
    if len({int(number) for number in numbers}) < len(numbers):
        raise PydanticCustomError("devices", "Input should name each GPU once")
    return ",".join(str(int(number)) for number in numbers)


def _network_list(text: str) -> str:
    networks = [network.strip() for network in text.split(",") if network.strip()]
    try:
        return ",".join(str(_in_own_family(ipaddress.ip_network(network))) for network in networks)
    except ValueError as error:
        raise PydanticCustomError(
            "trusted_proxies",
            "Input should be addresses and networks with commas between, such as 127.0.0.1,10.0.0.0/8: {why}",
            {"why": str(error)},
        ) from None


def _in_own_family(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> object:
    """Network of IPv4 where it is one in IPv6 (``::ffff:10.0.0.0/104``): addresses are compared as what they are."""
    if network.version == 6 and network.prefixlen >= 96 and (first := network.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((first, network.prefixlen - 96))
    return network


def _package_folders(given: object) -> object:
    if isinstance(given, Path):
        return (given,)
    if not isinstance(given, str):
        return given
    # an empty part is what a variable leaves that is not set
    folders = tuple(ZOO if part == "zoo" else Path(part) for part in given.split(os.pathsep) if part)
    if not folders:
        raise PydanticCustomError("models_dir", "Input should name a folder of packages, or zoo")
    return tuple(dict.fromkeys(folders))


def _path_prefix(text: str) -> str:
    prefix = text.rstrip("/")
    if not re.fullmatch(r"(/[^/\\?#\s]+)*", prefix):
        raise PydanticCustomError("root_path", "Input should begin with one /, without blanks, ? or #, such as /unet")
    return prefix


def _origin_list(text: str) -> str:
    origins = [origin.strip().lower() for origin in text.split(",") if origin.strip()]
    if origins != ["*"] and not all(re.fullmatch(_ORIGIN, origin, re.ASCII) for origin in origins):
        raise PydanticCustomError(
            "cors_origins",
            "Input should be * alone, or origins with commas between: scheme, host and a port that is not the scheme's "
            "own, without a path, such as https://viewer.example.org or http://127.0.0.1:3000",
        )
    return ",".join(dict.fromkeys(origins))


MemoryBudget: TypeAlias = Annotated[int, AfterValidator(_none_or_enough)]
"""MiB: 0, or enough to work with."""
Devices: TypeAlias = Annotated[str, AfterValidator(_device_list)]
"""Numbers of GPUs with commas between, or ``all``."""
Networks: TypeAlias = Annotated[str, AfterValidator(_network_list)]
"""Addresses and networks with commas between."""
ClientHeader: TypeAlias = Literal["x-forwarded-for", "forwarded"]
"""Names of the headers in which proxies tell the client's address."""
PackageFolders: TypeAlias = Annotated[tuple[Path, ...] | None, NoDecode, BeforeValidator(_package_folders)]
"""Separated as in PATH; ``zoo`` is the folder of the packages that ship."""
PathPrefix: TypeAlias = Annotated[str, AfterValidator(_path_prefix)]
"""Without a slash at its end."""
Origins: TypeAlias = Annotated[str, AfterValidator(_origin_list)]
"""Web origins with commas between, or ``*``."""
