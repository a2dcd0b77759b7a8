import os
import socket

import pytest

from rlhf.local.machine import PORTS, PortTaken, choose_ports, physical_cores, thread_environment


def test_cores_are_at_least_one_and_at_most_what_the_affinity_allows() -> None:
    assert 1 <= physical_cores() <= len(os.sched_getaffinity(0))


def test_threads_wait_passively() -> None:
    environment = thread_environment(2)
    assert environment["OMP_NUM_THREADS"] == environment["RLHF_THREADS"] == "2"
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_free_ports_are_distinct_and_below_the_range_of_outgoing_connections() -> None:
    ports = choose_ports(dict.fromkeys(("policy", "reward", "trainer", "redis"), 0))
    assert len(set(ports.values())) == 4
    assert all(port in PORTS for port in ports.values())


def test_a_port_in_use_is_refused_with_the_option_that_changes_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} is in use; give another with --port-policy"):
            choose_ports({"policy": port})
        ports = choose_ports({"policy": 0, "reward": 0})
    assert port not in ports.values()
