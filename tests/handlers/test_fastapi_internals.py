"""What we use of FastAPI's internals: each test names what a new release has moved."""

from typing import Annotated

import pytest
from fastapi import FastAPI, Form, Query
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel

from flash_runtime.handlers.fastapi_internals import fields_of, why_fastapi_reads


class Item(BaseModel):
    name: str
    price: float = 1.0


def route(endpoint, path="/{number}", method="POST") -> APIRoute:
    app = FastAPI()
    app.add_api_route(path, endpoint, methods=[method])
    added = app.routes[-1]
    assert isinstance(added, APIRoute), "FastAPI adds a route of another class"
    return added


def handler(number: int, item: Item, limit: Annotated[int, Query(alias="most", gt=0)] = 3) -> Item: ...


@pytest.mark.parametrize("name", ["dependant", "body_field", "response_field", "methods", "path"])
def test_a_route_has_the_attributes_that_we_read(name):
    assert hasattr(route(handler), name)


@pytest.mark.parametrize("name", ["path_params", "query_params", "body_params"])
def test_a_dependant_lists_its_parameters(name):
    assert len(getattr(route(handler).dependant, name)) == 1


@pytest.mark.parametrize(
    "name",
    ["name", "alias", "validation_alias", "field_info", "config", "validate", "serialize", "get_default"],
)
def test_a_field_has_the_attributes_that_we_read(name):
    assert hasattr(route(handler).dependant.query_params[0], name)


@pytest.mark.parametrize("name", ["annotation", "is_required", "validate_default", "validation_alias"])
def test_a_fields_info_has_the_attributes_that_we_read(name):
    assert hasattr(route(handler).dependant.query_params[0].field_info, name)


def test_fields_validate_as_fastapi_does_and_take_defaults():
    fields = fields_of(route(handler))
    values = {}
    assert fields.path[0].take("7", values)
    assert fields.query[0].alias == "most"
    assert fields.query[0].take(None, values)
    assert fields.body is not None
    assert fields.body.take({"name": "a"}, values)
    assert values == {"number": 7, "limit": 3, "item": Item(name="a")}
    assert not fields.query[0].take("0", {})
    assert not fields.path[0].take(None, {})


def test_a_result_is_serialized_by_its_type_or_refused():
    result = fields_of(route(handler)).result
    assert result is not None
    assert result.serialized(Item(name="a")) == {"name": "a", "price": 1.0}
    with pytest.raises(ResponseValidationError):
        result.serialized({"price": "no name"})


def test_a_body_that_is_the_only_field_of_its_route_is_the_routes_body_field():
    assert why_fastapi_reads(route(handler)) is None


def test_a_form_and_a_list_in_the_query_are_fastapis_to_read():
    def form(number: int, word: Annotated[str, Form()]): ...
    def words(number: int, word: Annotated[list[str], Query()]): ...

    assert why_fastapi_reads(route(form)) == "its body is embedded, or a form"
    assert why_fastapi_reads(route(words)) == "`word` is of a type that FastAPI reads in its own way"
