"""The sealed environments of the engine and of the SAM CLI: what a person has set never reaches them.

No profile, no real credentials, no proxy, no settings file: a deploy meant for this machine can't reach an account.
The one place of the local engine that reads this process's environment, and only its PATH.
"""

import os
from pathlib import Path

from pipeline.local.paths import PROJECT_ROOT, StateFolder
from pipeline.runtime import overlay

REGION = "us-east-1"
# Accepted by the engine and by nobody else. As execution credentials they are what the functions sign with, too.
ACCESS_KEY_ID = "test"
SECRET_ACCESS_KEY = "test"
# Every process of an engine carries its state folder under this name: that is how strays are found.
ENGINE_MARK = "OPX_ENGINE_STATE"
DEPLOY_MARK = "OPX_DEPLOY_STATE"


def for_supervisor() -> dict[str, str]:
    """Return the environment of the process that watches over the engine; unmarked, so that it never ends itself."""
    return {"PATH": search_path(), "LANG": "C.UTF-8", "PYTHONPATH": str(PROJECT_ROOT)}


def for_engine(state: StateFolder, port: int, *, checked: bool = False) -> dict[str, str]:
    """Return the engine's environment; the functions inherit it.

    `checked`: signatures and permissions are checked as in an account, of people, of functions and of all but the root key.
    """
    return {
        **sealed(state),
        ENGINE_MARK: str(state.root),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # would listen on every interface
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "AUTH": "true" if checked else "false",
        "STATE_DIR": str(state.scratch / "state"),
        "S3_DATA_DIR": str(state.scratch / "s3"),
    }


def for_sam(state: StateFolder, endpoint_url: str, python: str, config: Path | None = None) -> dict[str, str]:
    """Return the SAM CLI's environment: it can reach the engine and nothing else. It builds with the `config` given."""
    own = {} if config is None else {overlay.VARIABLE: str(config)}
    return {
        **own,
        **sealed(state),
        DEPLOY_MARK: str(state.root),
        "AWS_ENDPOINT_URL": endpoint_url,
        "SAM_CLI_TELEMETRY": "0",
        "SAM_CLI_POLL_DELAY": "0.2",  # seconds; its default of 5 is meant for an account's rate limits
        "OPX_PYTHON": python,
        "OPX_PLATFORM": "host",
    }


def sealed(state: StateFolder) -> dict[str, str]:
    """Return what both have in common: dummy credentials and folders of their own."""
    return {
        "PATH": search_path(),
        "HOME": str(state.home),
        "TMPDIR": str(state.scratch),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": "*",  # where no variable names one, Python takes the system's own (macOS)
    }


def search_path() -> str:
    """Return where programs are found."""
    return os.environ.get("PATH", os.defpath)
