"""Answers that are not 200, in the words of packhouse's other errors: what, where, got, want, next."""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

from packhouse.errors import Refused


class RequestRefused(Refused):
    """The request is bad. Sent again, it is answered alike. `what` never repeats a client's values: it is logged."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    headers: ClassVar[dict[str, str]] = {}


class NotServed(RequestRefused):
    """Another model or version than this server has."""

    status = HTTPStatus.NOT_FOUND


class TooLarge(RequestRefused):
    """More bytes than the limit."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class TooSlow(RequestRefused):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    headers = {"Connection": "close"}


class NotTaken(RequestRefused):
    """Another content type or encoding than this route reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Busy(RequestRefused):
    """As many requests as the server takes are waiting already. Sent again later, it may be answered."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    headers = {"Retry-After": "1"}


class NotReady(RequestRefused):
    """The server starts, stops, or does not trust its model."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    headers = {"Retry-After": "1"}
