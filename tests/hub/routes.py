"""The part of the Hub's protocol that is spoken here, and who may do what."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote

from . import reading, writing
from .messages import Answer, HubError, Request
from .storage import HubStorage, Repository


class Access(Enum):
    """Who may call a route."""

    ALL = "everybody"
    USER = "everybody with a token"
    READER = "everybody who can see the repository"
    MEMBER = "everybody with a token who can see the repository"
    WRITER = "its owner; others may open pull requests"
    BEARER = "everybody who knows the address, without a token"


@dataclass(frozen=True)
class Route:
    """`pattern` is an address in which `{name}` stands for one part and `{name*}` for all that follow."""

    methods: str
    pattern: str
    answer: Callable[..., Answer]
    access: Access

    def match(self, method: str, path: str) -> dict[str, str] | None:
        pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+)", self.pattern)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        found = re.fullmatch(pattern, path) if method in self.methods.split() else None
        return found and {name: unquote(value) for name, value in found.groupdict().items() if value}


API = "/api/(?P<types>models|datasets|spaces)/{owner}/{name}"
SHOWN = "/(?:(?P<types>datasets|spaces)/)?{owner}/{name}"
OBJECT = "/objects/(?P<types>models|datasets|spaces)/{owner}/{name}/{oid}"

ROUTES = (
    Route("GET", "/api/whoami-v2", reading.whoami, Access.USER),
    Route("POST", "/api/validate-yaml", writing.validate_yaml, Access.ALL),
    Route("POST", "/api/repos/create", writing.create_repository, Access.USER),
    Route("GET", f"{API}(?:/revision/{{revision}})?", reading.information, Access.READER),
    Route("GET", f"{API}/tree/{{revision}}(?:/{{path*}})?", reading.tree, Access.READER),
    Route("POST", f"{API}/paths-info/{{revision}}", reading.paths_info, Access.READER),
    Route("GET HEAD", f"{SHOWN}/resolve/{{revision}}/{{path*}}", reading.resolve, Access.READER),
    Route("POST", f"{API}/preupload/{{revision}}", writing.preupload, Access.WRITER),
    Route("POST", rf"{SHOWN}\.git/info/lfs/objects/batch", writing.lfs_batch, Access.MEMBER),
    Route("POST", f"{API}/commit/{{revision}}", writing.commit, Access.WRITER),
    Route("GET HEAD", OBJECT, reading.download_object, Access.BEARER),
    Route("PUT", OBJECT, writing.upload_object, Access.BEARER),
)


def answer(hub: HubStorage, request: Request) -> Answer:
    """Carries out a request. Raises `HubError` where the Hub refuses, `NotImplementedError` for what is not spoken here."""
    for route in ROUTES:
        parameters = route.match(request.method, request.path)
        if parameters is not None:
            request.parameters = parameters
            with hub.lock:
                _authenticate(hub, request, route.access)
                return route.answer(hub, request, *_repository(hub, request, route.access))
    raise NotImplementedError(f"the local Hub does not speak {request.method} {request.path}")


def _authenticate(hub: HubStorage, request: Request, access: Access) -> None:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and access is Access.BEARER:
        raise HubError(400, "Only one auth mechanism allowed")
    if token and token not in hub.tokens:
        raise HubError(401, "Invalid credentials in Authorization header")
    request.user = hub.tokens.get(token)
    if request.user is None and access in (Access.USER, Access.MEMBER, Access.WRITER):
        raise HubError(401, "Invalid username or password.")


def _repository(hub: HubStorage, request: Request, access: Access) -> list[Repository]:
    """The repository that the request is about, if it is about one and the user may do this with it."""
    if access in (Access.ALL, Access.USER):
        return []
    names = request.parameters
    repository = hub.find(names.get("types", "models").removesuffix("s"), f"{names['owner']}/{names['name']}")
    open_to_all = repository is not None and (not repository.private or access is Access.BEARER)
    if not open_to_all and (repository is None or request.user != repository.owner):
        # Who has no token is not told whether there is one. Clients would know this 401 by its address, but over https only.
        status, message = (401, "Invalid username or password.") if request.user is None else (404, "Repository not found")
        raise HubError(status, message, "RepoNotFound")
    if access is Access.WRITER and request.user != repository.owner and request.query.get("create_pr") != "1":
        raise HubError(403, "Authorization error.")
    return [repository]
