"""Asks an engine whether it answers. Never through a proxy, and never anything but the loopback interface."""

import http.client

HEALTH_PATH = "/_ministack/health"


def answers(port: int, timeout_s: float = 2.0) -> bool:
    """Return whether an engine on `port` says that it is up."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", HEALTH_PATH)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
