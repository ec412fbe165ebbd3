import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duotrack_client.errors import InvalidState
from duotrack_client.protocol import Credential, find_credential, offer
from duotrack_client.protocol.credentials import CredentialKind

secrets = st.from_regex(re.compile(r"[A-Za-z0-9_-]{1,256}"), fullmatch=True)
kinds = st.sampled_from(["ticket", "resume"])


@given(kinds, secrets)
def test_what_is_offered_is_found_among_other_subprotocols(kind: CredentialKind, secret: str) -> None:
    offered = ["duotrack.v1", offer(kind, secret), "duotrack.v1.msgpack"]
    assert find_credential(offered) == Credential(kind, secret)


@given(kinds, secrets)
def test_an_offer_is_a_token_of_http(kind: CredentialKind, secret: str) -> None:
    assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", offer(kind, secret))  # RFC 9110, section 5.6.2


@pytest.mark.parametrize("secret", ["", "a b", "a,b", "a.b", "a=", "ä", "abc\n", "x" * 257])
def test_what_is_no_secret_is_not_offered_and_not_shown(secret: str) -> None:
    with pytest.raises(InvalidState, match=f"base64url characters, got {len(secret)} characters") as caught:
        offer("ticket", secret)
    assert secret == "" or secret not in str(caught.value)


@pytest.mark.parametrize(
    "offered",
    [
        [],
        ["duotrack.v1", "duotrack.v1.msgpack"],
        ["duotrack.ticket.", "duotrack.ticket", "duotrack.key.abc", "xduotrack.ticket.abc"],
        ["duotrack.ticket.a b", "duotrack.ticket.abc\n", "duotrack.resume." + "x" * 257, "DUOTRACK.TICKET.abc"],
    ],
)
def test_what_is_no_credential_is_not_taken_for_one(offered: list[str]) -> None:
    assert find_credential(offered) is None


def test_the_first_of_several_counts() -> None:
    credential = find_credential(["duotrack.resume.a", "duotrack.ticket.b"])
    assert credential == Credential("resume", "a")


def test_the_secret_is_not_shown() -> None:
    assert repr(Credential("ticket", "s3cr3t")) == "Credential(kind='ticket')"
    assert "s3cr3t" not in f"{Credential('ticket', 's3cr3t')}"
