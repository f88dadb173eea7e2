"""Tokens of users and programs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Response

from tuner.client.resources import NewToken, Page, Token, TokenSpec
from tuner.service.api.access import PREFIX, Admin, Cursor, Limit, ServiceOf
from tuner.service.api.problems import answer, responses

router = APIRouter(prefix=f"{PREFIX}/tokens", tags=["tokens"])

_EXAMPLES: dict[str, Any] = {"ci": {"summary": "For a pipeline", "value": {"name": "ci", "role": "submit"}}}

TokenId = Annotated[str, Path(max_length=64, description="Its id.")]


@router.get("", response_model=Page[Token], responses=responses())
def tokens(service: ServiceOf, who: Admin, cursor: Cursor = None, limit: Limit = 50) -> Response:
    """Tokens, by name, without their secrets."""
    return answer(service.tokens(who, cursor=cursor, limit=limit))


@router.post("", status_code=201, response_model=NewToken, responses=responses(400, 409, 413, 415))
def new_token(service: ServiceOf, who: Admin, spec: Annotated[TokenSpec, Body(openapi_examples=_EXAMPLES)]) -> Response:
    """Make a token. Only this response has its secret."""
    token = service.new_token(who, spec)
    return answer(token, 201, headers={"Location": f"{PREFIX}/tokens/{token.id}"})


@router.get("/{token_id}", response_model=Token, responses=responses(404))
def token(service: ServiceOf, who: Admin, token_id: TokenId) -> Response:
    """A token, without its secret."""
    return answer(service.token(who, token_id))


@router.delete("/{token_id}", status_code=204, response_class=Response, responses=responses(404, 409))
def remove_token(service: ServiceOf, who: Admin, token_id: TokenId) -> Response:
    """Remove a token. Requests with it are refused from then on, and its browser sessions end."""
    service.remove_token(who, token_id)
    return Response(status_code=204)
