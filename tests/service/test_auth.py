"""API keys, JSON Web Tokens, and the command that makes keys."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from duotrack_service.auth import ANONYMOUS, Authenticator, AuthError, Principal, Unauthorized
from duotrack_service.keys import ApiKey, KeyFileError, app, new_key, read_keys, write_keys
from duotrack_service.settings import Settings
from duotrack_service.tickets import digest, new_secret

SECRET = "a secret of at least thirty-two bytes"


def settings(**changes: object) -> Settings:
    return Settings(store="memory:", **changes)


def key_of(name: str, secret: str, **limits: object) -> ApiKey:
    return ApiKey(name, digest(secret), datetime.now(UTC), **limits)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write_keys(path, [key_of("drone", "dtk_one", max_sessions=2), key_of("lab", "dtk_two", frames_per_second=5.0)])
    return path


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Mock:
    mock = Mock()
    monkeypatch.setattr("duotrack_service.auth.log", mock)
    return mock


def test_without_keys_everyone_is_anonymous() -> None:
    authenticator = Authenticator.from_settings(settings())
    assert not authenticator.required
    assert authenticator.authenticate("Bearer anything") is ANONYMOUS


def test_a_key_tells_whose_it_is_and_its_limits(keys: Path) -> None:
    authenticator = Authenticator.from_settings(settings(keys_file=keys))
    assert authenticator.required
    assert authenticator.authenticate("Bearer dtk_one") == Principal("drone", max_sessions=2)
    assert authenticator.authenticate("bearer  dtk_two ") == Principal("lab", frames_per_second=5.0)


@pytest.mark.parametrize("header", [None, "", "dtk_one", "Basic dtk_one", "Bearer", "Bearer dtk_three", "Bearer é"])
def test_anything_else_is_refused_without_being_repeated(keys: Path, header: str | None) -> None:
    with pytest.raises(Unauthorized) as caught:
        Authenticator.from_settings(settings(keys_file=keys)).authenticate(header)
    assert "dtk_" not in str(caught.value)


def test_all_keys_are_compared_whichever_fits(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    authenticator = Authenticator.from_settings(settings(keys_file=keys))
    monkeypatch.setattr("duotrack_service.auth.hmac.compare_digest", compare)
    authenticator.authenticate("Bearer dtk_one")
    assert compared == [digest("dtk_one"), digest("dtk_two")]


def test_sessions_go_on_until_their_key_is_revoked(keys: Path) -> None:
    authenticator = Authenticator.from_settings(settings(keys_file=keys))
    drone = digest("dtk_one")
    assert authenticator.keeps("drone", drone)
    assert authenticator.keeps("drone", None)  # of a service that did not note keys yet
    assert not authenticator.keeps("drone", digest("dtk_two"))
    assert not authenticator.keeps("anonymous", None)
    assert not authenticator.keeps("jwt:camera", None)
    write_keys(keys, [key_of("drone", "dtk_one", expires_at=datetime.now(UTC) - timedelta(hours=1))])
    assert authenticator.keeps("drone", drone)
    write_keys(keys, [key_of("drone", "dtk_three")])
    assert not authenticator.keeps("drone", drone)
    write_keys(keys, [])
    assert not authenticator.keeps("drone", None)
    keys.unlink()  # those from before hold
    assert not authenticator.keeps("drone", drone)
    assert Authenticator().keeps("drone", drone)
    tokens = Authenticator.from_settings(settings(jwt_secret=SECRET))
    assert tokens.keeps("jwt:camera", None)
    assert not tokens.keeps("drone", drone)


def test_a_key_expires(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    path = tmp_path / "keys.json"
    old, young = (key_of(name, name, expires_at=now + timedelta(hours=hours)) for name, hours in (("a", -1), ("b", 1)))
    write_keys(path, [old, young])
    authenticator = Authenticator.from_settings(settings(keys_file=path))
    assert authenticator.authenticate("Bearer b").name == "b"
    with pytest.raises(Unauthorized):
        authenticator.authenticate("Bearer a")


def test_the_file_is_read_again_when_it_changes_and_only_if_it_is_sound(keys: Path, log: Mock) -> None:
    authenticator = Authenticator.from_settings(settings(keys_file=keys))
    write_keys(keys, [key_of("new", "dtk_new")])
    assert authenticator.authenticate("Bearer dtk_new").name == "new"
    with pytest.raises(Unauthorized):
        authenticator.authenticate("Bearer dtk_one")
    keys.write_text("{ broken")
    assert authenticator.authenticate("Bearer dtk_new").name == "new"
    assert authenticator.authenticate("Bearer dtk_new").name == "new"
    assert [call.args[0] for call in log.error.call_args_list] == [
        "the keys are not read again, and those from before hold"
    ]
    keys.unlink()
    assert authenticator.authenticate("Bearer dtk_new").name == "new"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "JSON"),
        ('{"keys": [{"name": "a"}]}', "keys.0.digest: Field required"),
        ('{"keys": [], "more": 1}', "more: Extra inputs"),
        ('{"keys": [{"name": "a:b", "digest": "0", "created_at": "2026-01-01T00:00:00Z"}]}', "keys.0.name"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(AuthError, match=reason):
        Authenticator.from_settings(settings(keys_file=path))


def test_a_file_that_is_not_there_or_has_a_name_twice(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="No such file"):
        Authenticator.from_settings(settings(keys_file=tmp_path / "none"))
    write_keys(tmp_path / "twice", [key_of("a", "1"), key_of("a", "2")])
    with pytest.raises(KeyFileError, match="two keys are called 'a'"):
        read_keys(tmp_path / "twice")


def test_keys_are_long_random_and_kept_as_digests(keys: Path) -> None:
    assert len({new_key() for _ in range(50)}) == 50
    assert len(new_key()) == len("dtk_") + 43
    assert len(new_secret()) == 43
    assert "dtk_" not in keys.read_text()
    assert keys.stat().st_mode & 0o777 == 0o600


def test_a_file_that_others_can_read_is_warned_of(keys: Path, log: Mock) -> None:
    keys.chmod(0o644)
    Authenticator.from_settings(settings(keys_file=keys))
    assert [call.args[0] for call in log.warning.call_args_list] == ["others can read the file of keys"]


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = run("add", "drone-1", "--file", file, "--max-sessions", 3, "--frames-per-second", 30, "--days", 2)
    assert made.exit_code == 0
    key = made.stdout.strip()
    authenticator = Authenticator.from_settings(settings(keys_file=file))
    assert authenticator.authenticate(f"Bearer {key}") == Principal("drone-1", 3, 30.0)
    assert run("add", "lab", "--file", file).exit_code == 0
    listed = run("list", "--file", file).stdout
    assert "drone-1" in listed
    assert key not in listed
    assert "for good" in listed
    again = run("add", "lab", "--file", file)
    assert (again.exit_code, "there is a key called 'lab'" in again.stderr) == (1, True)
    assert run("revoke", "drone-1", "--file", file).exit_code == 0
    assert [stored.name for stored in read_keys(file)] == ["lab"]
    gone = run("revoke", "drone-1", "--file", file)
    assert (gone.exit_code, "no key called 'drone-1'" in gone.stderr) == (1, True)


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    assert run("list", "--file", tmp_path / "none").exit_code == 1
    wrong = run("add", "a b", "--file", tmp_path / "keys.json")
    assert (wrong.exit_code, "name: String should match" in wrong.stderr) == (2, True)
    blocked = run("add", "a", "--file", tmp_path / "no folder" / "keys.json")
    assert (blocked.exit_code, "cannot write the keys" in blocked.stderr) == (1, True)
    for days in ("0", "-1", "nan", "inf", "1e9"):
        never = run("add", "a", "--file", tmp_path / "keys.json", f"--days={days}")
        assert (never.exit_code, "--days" in never.stderr) == (2, True)
    assert not (tmp_path / "keys.json").exists()


def token(key: str = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    jwt = pytest.importorskip("jwt")
    return f"Bearer {jwt.encode({'sub': 'camera', 'exp': int(time.time()) + 60, **claims}, key, algorithm)}"


def test_a_token_signed_with_the_secret_names_its_subject() -> None:
    pytest.importorskip("jwt")
    authenticator = Authenticator.from_settings(settings(jwt_secret=SECRET))
    assert authenticator.authenticate(token()) == Principal("jwt:camera")
    limited = token(duotrack_max_sessions=2, duotrack_frames_per_second=7.5)
    assert authenticator.authenticate(limited) == Principal("jwt:camera", 2, 7.5)


# Not now ± something: the list below is made when tests are collected, which may be many minutes before they run.
LONG_AGO, FAR_OFF = 1, 2**32  # seconds: 1970 and 2106


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": LONG_AGO},
        {"exp": None},
        {"sub": None},
        {"sub": 5},
        {"nbf": FAR_OFF},
        {"iss": "another"},
        {"aud": "another"},
        {"duotrack_max_sessions": 0},
        {"duotrack_max_sessions": True},
        {"duotrack_frames_per_second": "9"},
    ],
)
def test_a_token_that_is_not_as_it_should_be(claims: dict[str, object]) -> None:
    pytest.importorskip("jwt")
    sound = {"iss": "us", "aud": "duotrack"}
    authenticator = Authenticator.from_settings(settings(jwt_secret=SECRET, jwt_issuer="us", jwt_audience="duotrack"))
    assert authenticator.authenticate(token(**sound)).name == "jwt:camera"
    wrong = {name: value for name, value in {**sound, **claims}.items() if value is not None}
    header = token(**wrong)
    if None in claims.values():
        import jwt

        payload = {"sub": "camera", "exp": int(time.time()) + 60, **sound}
        header = f"Bearer {jwt.encode({k: v for k, v in payload.items() if k not in claims}, SECRET)}"
    with pytest.raises(Unauthorized) as caught:
        authenticator.authenticate(header)
    assert header.split()[1] not in str(caught.value)


def test_the_signature_and_its_kind_are_ours_to_choose(tmp_path: Path) -> None:
    jwt = pytest.importorskip("jwt")
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = Ed25519PrivateKey.generate()
    pem = tmp_path / "public.pem"
    pem.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    authenticator = Authenticator.from_settings(settings(jwt_public_key_file=pem))
    payload = {"sub": "camera", "exp": int(time.time()) + 60}
    assert authenticator.authenticate(f"Bearer {jwt.encode(payload, private, 'EdDSA')}").name == "jwt:camera"
    # Who knows the public key must not be able to sign with it as if it were a shared secret; nor not to sign at all.
    body = jwt.encode(payload, "", "none")
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {body}")
    import base64
    import hashlib
    import hmac

    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).rstrip(b"=")
    signed = head + b"." + body.split(".")[1].encode()
    forged = base64.urlsafe_b64encode(hmac.new(pem.read_bytes(), signed, hashlib.sha256).digest()).rstrip(b"=")
    with pytest.raises(Unauthorized):
        authenticator.authenticate(f"Bearer {(signed + b'.' + forged).decode()}")
    with pytest.raises(Unauthorized):
        authenticator.authenticate("Bearer dtk_no_token")
    # A kind of signature that the key cannot check.
    for kind in ("RS256", "ES256"):
        head = base64.urlsafe_b64encode(json.dumps({"alg": kind, "typ": "JWT"}).encode()).rstrip(b"=")
        with pytest.raises(Unauthorized):
            authenticator.authenticate(f"Bearer {head.decode()}.{body.split('.')[1]}.AAAA")


def test_keys_and_tokens_side_by_side(keys: Path) -> None:
    pytest.importorskip("jwt")
    authenticator = Authenticator.from_settings(settings(keys_file=keys, jwt_secret=SECRET))
    assert authenticator.authenticate("Bearer dtk_one").name == "drone"
    assert authenticator.authenticate(token(sub="drone")).name == "jwt:drone"


def test_settings_of_tokens_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jwt")
    (tmp_path / "no.pem").write_text("no key")
    for changes, reason in (
        ({"jwt_secret": "short"}, "must have 32 bytes, got 5"),
        ({"jwt_secret": SECRET, "jwt_public_key_file": tmp_path / "no.pem"}, "got both"),
        ({"jwt_public_key_file": tmp_path / "no.pem"}, "expected a public key in PEM form"),
        ({"jwt_public_key_file": tmp_path / "none.pem"}, "No such file"),
    ):
        with pytest.raises(AuthError, match=reason):
            Authenticator.from_settings(settings(**changes))
    for missing in ("cryptography", "jwt"):
        monkeypatch.setattr("duotrack_service.auth.find_spec", lambda name, gone=missing: None if name == gone else 1)
        with pytest.raises(AuthError, match=r"pip install 'duotrack\[jwt\]'"):
            Authenticator.from_settings(settings(jwt_public_key_file=tmp_path / "no.pem"))


def test_secrets_are_not_shown_in_settings() -> None:
    assert SECRET not in repr(settings(jwt_secret=SECRET))
