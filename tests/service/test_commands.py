"""The commands ``duotrack-client`` and ``duotrack-serve``."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import cv2
import httpx2
import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from duotrack.errors import ModelError
from duotrack_client import Client
from duotrack_client import cli as client_cli
from duotrack_service import cli as serve_cli
from duotrack_service import settings as settings_module
from duotrack_service.server import bind


def run_client(*arguments: object) -> Result:
    return CliRunner().invoke(client_cli.app, ["stream", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path, scene) -> Path:
    """The scene as two folders of PNG images."""
    for index, pair in enumerate(scene.pairs):
        for name, image in (("rgb", pair.rgb[:, :, ::-1]), ("thermal", pair.thermal)):
            (tmp_path / name).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    return tmp_path


@pytest.fixture
def arguments(service, folders: Path) -> list[object]:
    return [
        "--url",
        service.url,
        "--rgb",
        folders / "rgb",
        "--thermal",
        folders / "thermal",
        "--init-box",
        "20,30,24,24",
    ]


def test_a_folder_is_tracked_into_every_kind_of_file(arguments, folders: Path, scene) -> None:
    boxes, rows, video = folders / "boxes.txt", folders / "results.csv", folders / "out.mp4"
    result = run_client(*arguments, "--output", boxes, "--csv", rows, "--video", video)
    assert result.exit_code == 0, result.output
    assert "12 frames tracked, target lost in 0" in result.stderr
    assert result.stdout == ""
    assert boxes.read_text().splitlines() == [box.text() for box in scene.boxes]
    with rows.open() as file:
        table = list(csv.DictReader(file))
    assert [row["frame"] for row in table] == [str(index) for index in range(12)]
    assert {row["state"] for row in table} == {"tracking"}
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 12
    assert capture.read()[1].shape == (180, 480, 3)
    capture.release()


@pytest.mark.parametrize("modality", ["rgb", "thermal"])
def test_one_modality_is_enough(service, folders: Path, scene, modality: str) -> None:
    boxes = folders / "boxes.txt"
    result = run_client(
        "--url", service.url, f"--{modality}", folders / modality, "--init-box", "20,30,24,24", "--output", boxes
    )
    assert result.exit_code == 0, result.output
    assert boxes.read_text().splitlines()[-1] == scene.boxes[-1].text()


def test_unequal_lengths_are_told(arguments, folders: Path) -> None:
    (folders / "thermal" / "11.png").unlink()
    result = run_client(*arguments)
    assert result.exit_code == 0
    assert "the thermal frames end after 11, the colour frames go on: stopped there" in result.stderr
    assert "11 frames tracked" in result.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--init-box", "1,2,3"], "expected a box as four numbers x,y,w,h in pixels, got '1,2,3'"),
        (["--init-box", "1,2,3,0"], "positive width and height"),
        (["--init-box", "1,2,3,4"], "expected --rgb, --thermal, or both"),
        ([], "--init-box"),
        (["--init-box", "1,2,3,4", "--speed", "9"], "--speed"),
    ],
)
def test_wrong_usage_is_2(wrong: list[str], message: str) -> None:
    result = run_client(*wrong)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--url": "http://127.0.0.1:9"}, "cannot reach the service at http://127.0.0.1:9/"),
        ({"--url": "localhost"}, "expected the URL of a service such as http://127.0.0.1:8000, got 'localhost'"),
        ({"--rgb": "nowhere"}, "expected a folder of images or a video, found nothing at nowhere"),
        ({"--output": "nowhere/boxes.txt"}, "cannot write nowhere/boxes.txt: No such file or directory"),
        ({"--video": "out.gif"}, "expected a video file that ends in .mp4, got out.gif"),
        ({"--init-box": "900,9,9,9"}, "box 900,9,9,9 has its centre outside the 240x180 image"),
        ({"--model": "huge"}, "the service answered 422: No such model: expected a model among match, got 'huge'"),
    ],
)
def test_what_goes_wrong_is_1_and_one_message(arguments, change: dict[str, str], message: str) -> None:
    changed = dict(zip(arguments[::2], arguments[1::2], strict=True)) | change
    result = run_client(*(part for option in changed.items() for part in option))
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("duotrack-client: ")]
    assert message in line
    assert "Traceback" not in result.stderr


def test_a_track_that_does_not_start_leaves_what_was_there(arguments, folders: Path) -> None:
    boxes, frame = folders / "boxes.txt", folders / "rgb" / "0.png"
    boxes.write_text("1,2,3,4\n")
    stored = frame.read_bytes()
    result = run_client(*arguments, "--init-box", "900,9,9,9", "--output", boxes)
    assert result.exit_code == 1
    assert boxes.read_text() == "1,2,3,4\n"
    result = run_client(*arguments, "--output", frame)
    assert result.exit_code == 1
    assert f"expected {frame} to be written elsewhere than to the input {folders / 'rgb'}" in result.stderr
    assert frame.read_bytes() == stored


def test_a_key_that_lacks_is_asked_for(serve, folders: Path, tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "keys.json"
    key = CliRunner().invoke(serve_cli.app, ["keys", "add", "lab", "--file", str(file)]).stdout.strip()
    service = serve(keys_file=file)
    given = ("--url", service.url, "--init-box", "10,10,20,20", "--rgb", folders / "rgb")
    refused = run_client(*given)
    assert refused.exit_code == 1
    assert refused.stderr.strip().endswith("put the key into the variable DUOTRACK_API_KEY")
    monkeypatch.setenv("DUOTRACK_API_KEY", key)
    assert run_client(*given).exit_code == 0


def test_a_service_that_goes_away_is_looked_for_and_that_is_said(serve, gate, folders: Path, wait) -> None:
    service = serve(model=gate, reconnect_after_s=0)

    def leave() -> None:
        assert gate.entered.wait(10)
        service.server.should_exit = True
        wait(lambda: httpx2.get(f"{service.url}/health/ready").status_code == 503)
        gate.opened.set()  # the step under way is answered, and what waits is not
        service.stop()

    leaving = threading.Thread(target=leave)
    leaving.start()
    arguments = ("--url", service.url, "--rgb", folders / "rgb", "--init-box", "20,30,24,24")
    result = run_client(*arguments, "--reconnect", "0.3")
    leaving.join(20)
    assert result.exit_code == 1
    shown = " ".join(result.stderr.split())
    assert ": looking for the service" in shown
    assert re.search(r"the connection was lost, and no other was found within \d+ s", shown)


def test_what_was_written_before_a_damaged_frame_stays(arguments, folders: Path, scene) -> None:
    (folders / "rgb" / "10.png").write_bytes(b"damaged")
    boxes, video = folders / "boxes.txt", folders / "out.mp4"
    result = run_client(*arguments, "--output", boxes, "--video", video)
    assert result.exit_code == 1
    assert "10.png as an image: is the file damaged?" in result.stderr
    lines = boxes.read_text().splitlines()
    assert lines == [box.text() for box in scene.boxes[:10]]
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(lines)
    capture.release()


def test_an_interrupt_leaves_whole_files(serve, gate, folders: Path, wait) -> None:
    service = serve(model=gate)
    boxes, video = folders / "boxes.txt", folders / "out.mp4"
    command = [sys.executable, "-c", "from duotrack_client.cli import main; main()", "stream", "--url", service.url]
    command += ["--rgb", str(folders / "rgb"), "--init-box", "20,30,24,24"]
    command += ["--output", str(boxes), "--video", str(video)]
    # Ctrl-C is ignored by what a shell runs in the background, and by its children, unless they set it anew.
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    wait(lambda: boxes.exists() and boxes.read_text() != "" and gate.entered.is_set())
    time.sleep(0.3)  # for the first frame to be in every file; the second waits at the gate
    process.send_signal(signal.SIGINT)
    gate.opened.set()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; what was written so far is whole" in errors
    assert "Traceback" not in errors
    assert boxes.read_text().splitlines()[0] == "20,30,24,24"
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(boxes.read_text().splitlines())
    capture.release()


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch) -> None:
    """The command configures the logging of its process, which is ours here."""
    monkeypatch.setattr(serve_cli.logs, "configure", Mock())


def run_serve(*arguments: str) -> Result:
    return CliRunner().invoke(serve_cli.app, arguments)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DUOTRACK_PORT", "none", "DUOTRACK_PORT: Input should be a valid integer"),
        ("DUOTRACK_WINDOW", "0", "DUOTRACK_WINDOW: Input should be greater than or equal to 1, got '0'"),
        ("DUOTRACK_LOG_LEVEL", "loud", "DUOTRACK_LOG_LEVEL"),
        ("DUOTRACK_ALLOWED_ORIGINS", "http://x", "JSON list such as [\"https://example.org\"], got 'http://x'"),
        ("DUOTRACK_ALLOWED_ORIGINS", "http://x", "DUOTRACK_ALLOWED_ORIGINS: "),
        ("DUOTRACK_ALLOWED_ORIGINS", '"http://x"', "DUOTRACK_ALLOWED_ORIGINS: Input should be a valid frozenset"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    result = run_serve()
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_port_in_use_is_named(service) -> None:
    port = service.url.rsplit(":", 1)[1]
    result = run_serve("--port", port)
    assert result.exit_code == 1
    assert f"duotrack-serve: cannot listen on 127.0.0.1 port {port}: Address already in use" in result.stderr


def test_of_two_services_that_start_at_once_the_second_gives_up(monkeypatch, match) -> None:
    with bind(settings_module.Settings(port=0)) as other:
        port = other.getsockname()[1]

        def load(_: settings_module.Settings) -> list:
            other.listen()
            return [match()]

        monkeypatch.setattr(serve_cli, "open_models", load)
        monkeypatch.setattr(serve_cli, "Server", Mock())
        result = run_serve("--port", str(port), "--store", "memory:")
    assert result.exit_code == 1
    assert f"duotrack-serve: cannot listen on 127.0.0.1 port {port}: Address already in use" in result.stderr


def test_a_host_that_is_none_of_ours_is_named() -> None:
    result = run_serve("--host", "nowhere.invalid")
    assert result.exit_code == 1
    assert "duotrack-serve: cannot listen on nowhere.invalid port 8000" in result.stderr


def test_a_model_that_cannot_be_loaded_is_named(monkeypatch) -> None:
    def fail(settings: settings_module.Settings) -> None:
        raise ModelError(f"no model is named {settings.model!r}")

    monkeypatch.setattr(serve_cli, "open_models", fail)
    result = run_serve("--port", "0", "--model", "huge")
    assert result.exit_code == 1
    assert "duotrack-serve: no model is named 'huge'" in result.stderr


SERVE = """
import conftest
from duotrack_service import cli
cli.open_models = lambda settings: [conftest.MatchModel()]
cli.main()
"""


def can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_service_logs_json_and_stops_cleanly_on_a_signal(wait) -> None:
    settings = {"DUOTRACK_PORT": "0", "DUOTRACK_STORE": "memory:"}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **settings}
    command = [sys.executable, "-c", SERVE, "--model", "match"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    lines = [json.loads(process.stderr.readline())]
    port = lines[0]["port"]
    assert (lines[0]["event"], lines[0]["models"], lines[0]["level"]) == ("serving", ["match"], "info")
    lines.append(json.loads(next(line for line in process.stderr if "startup complete" in line)))
    wait(lambda: can_connect(port))
    with Client(f"http://127.0.0.1:{port}") as client, client.session((20, 30, 24, 24)) as session:
        assert session.track(rgb=np.zeros((180, 240, 3), np.uint8)).seq == 0
    process.terminate()
    _, rest = process.communicate(timeout=20)
    lines += [json.loads(line) for line in rest.splitlines()]
    events = [line["event"] for line in lines]
    assert {"session created", "stream opened", "stream closed", "session ended"} <= set(events)
    assert all({"timestamp", "level", "logger"} <= set(line) for line in lines)
    assert process.returncode in (0, -signal.SIGTERM)


def test_a_variable_that_is_no_setting_is_told() -> None:
    names = ["PATH", "DUOTRACK_PORT", "DUOTRACK_API_KEY", "DUOTRACK_KEY_FILE", "DUOTRACK_COLOUR", "duotrack_host"]
    meant = {"DUOTRACK_KEY_FILE": "DUOTRACK_KEYS_FILE", "DUOTRACK_COLOUR": None}
    assert settings_module.unknown_variables(names) == meant


def test_settings_come_from_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("DUOTRACK_MAX_PIXELS", "1000")
    monkeypatch.setenv("DUOTRACK_ALLOWED_ORIGINS", '["https://a.test"]')
    settings = settings_module.Settings()
    assert settings.max_pixels == 1000
    assert settings.allowed_origins == {"https://a.test"}
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize("name", ["idle_s", "heartbeat_s", "reconnect_after_s", "frames_per_second"])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_setting_is_a_finite_number(monkeypatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"DUOTRACK_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        settings_module.Settings()
