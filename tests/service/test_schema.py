"""The HTTP interface met by requests that its own description allows, and by some that it does not (schemathesis)."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duotrack_service.app import create_app
from duotrack_service.settings import Settings

SCHEMA = schemathesis.openapi.from_dict(create_app(Settings(store="memory:")).openapi())
OPERATIONS = {
    f"{operation.method.upper()} {operation.path}": operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
}
KINDS = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


def test_every_route_is_described() -> None:
    assert {
        "POST /v1/sessions",
        "GET /v1/sessions",
        "GET /v1/sessions/{session_id}",
        "DELETE /v1/sessions/{session_id}",
        "POST /v1/sessions/{session_id}/tickets",
        "POST /v1/sessions/{session_id}/frames",
        "GET /v1/models",
        "GET /health/live",
        "GET /health/ready",
    } <= set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_breaks_the_service_and_every_error_is_a_problem(serve, name: str) -> None:
    service = serve(max_sessions=10_000, creations_per_minute=100_000)
    operation = OPERATIONS[name]
    cases = st.one_of(*(operation.as_strategy(generation_mode=kind) for kind in KINDS))

    @given(case=cases)
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def meet(case: schemathesis.Case) -> None:
        answer = case.call(base_url=service.url)
        assert answer.status_code < 500, case.as_curl_command()
        if answer.status_code >= 400:
            kind = answer.headers["content-type"][0]
            assert kind == "application/problem+json", f"{kind}: {case.as_curl_command()}"
            assert answer.json()["status"] == answer.status_code

    meet()
