"""Every hostile peer, fault and attack that is promised to be survived has a test."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

#: What a hostile peer may try → the tests that show what comes of it, with the name of the case
#: in brackets where a test has many.
HOSTILE: dict[str, list[str]] = {
    "first frame not hello": [
        "hostile_lifecycles::test_a_start_that_is_none[ before hello]",
        "hostile_lifecycles::test_an_unknown_kind_before_hello_is_ignored",
    ],
    "second hello": [
        "hostile_lifecycles::test_a_second_hello",
        "hostile_lifecycles::test_a_start_that_is_none[a second hello behind the first]",
        "hostile_servers::test_a_server_that_breaks_the_rules[a second hello]",
    ],
    "unknown version": ["hostile_lifecycles::test_a_start_that_is_none[an unknown version]"],
    "no hello in time": [
        "hostile_lifecycles::test_a_hello_that_does_not_come_in_time[nothing]",
        "hostile_handshakes::test_handshakes_and_no_hello",
    ],
    "unknown kind": ["hostile_envelopes::test_an_unknown_kind"],
    "id never opened": [
        "hostile_lifecycles::test_a_frame_on_an_id_that_was_never_opened[of its own]",
        "hostile_lifecycles::test_a_frame_on_an_id_that_was_never_opened[of ours]",
    ],
    "id that went backward": [
        "hostile_lifecycles::test_an_id_that_cannot_be_opened[one that goes backward]"
    ],
    "id that has the wrong parity": [
        "hostile_lifecycles::test_an_id_that_cannot_be_opened[the other parity]"
    ],
    "id that is negative": ["hostile_lifecycles::test_an_id_that_cannot_be_opened[negative]"],
    "id that is a float": [
        "hostile_lifecycles::test_an_id_that_cannot_be_opened[a float]",
        "hostile_lifecycles::test_an_id_that_cannot_be_opened[a float that is whole]",
    ],
    "id that is a bool": ["hostile_lifecycles::test_an_id_that_cannot_be_opened[a bool]"],
    "id above 2^53": ["hostile_lifecycles::test_an_id_that_cannot_be_opened[2^53]"],
    "duplicate open id (the handler ran once)": [
        "hostile_lifecycles::test_a_handler_runs_once_for_an_id_that_is_opened_twice",
        "hostile_lifecycles::test_an_id_that_cannot_be_opened[one that is open]",
    ],
    "anything after a final frame": [
        "hostile_lifecycles::test_what_only_its_callee_says_on_a_call",
        "hostile_lifecycles::test_what_follows_the_end_of_an_upload",
        "hostile_lifecycles::test_what_may_cross_the_final_frame_is_ignored",
    ],
    "a chunk one item past the credit; to a consumer that is stuck": [
        "hostile_flow_control::test_a_chunk_past_the_credit_of_a_stuck_consumer[one item past]",
        "hostile_servers::test_items_past_the_credit[items]",
    ],
    "one byte past": [
        "hostile_flow_control::test_a_chunk_past_the_credit_of_a_stuck_consumer[one byte past]",
        "hostile_servers::test_items_past_the_credit[bytes]",
    ],
    "`grant` of 0": ["hostile_flow_control::test_a_grant_that_is_none[nothing]"],
    "`grant` that is negative": [
        "hostile_flow_control::test_a_grant_that_is_none[negative items]",
        "hostile_flow_control::test_a_grant_that_is_none[negative bytes]",
    ],
    "`grant` that is huge": ["hostile_flow_control::test_a_grant_that_is_none[2^53 items]"],
    "`grant` that overflows in sum": [
        "hostile_flow_control::test_a_grant_that_is_none[items that overflow in sum]",
        "hostile_flow_control::test_a_grant_that_is_none[bytes that overflow in sum]",
    ],
    "a million tiny grants": ["hostile_flow_control::test_a_million_tiny_grants"],
    "call-and-cancel as fast as the wire allows": [
        "hostile_floods::test_call_and_cancel_as_fast_as_the_wire_allows",
        "hostile_floods::test_call_and_cancel_is_not_borne_for_ever",
    ],
    "the same provoked by violations instead of `cancel`": [
        "hostile_floods::test_violations_in_the_place_of_cancels"
    ],
    "calls beyond `max_calls` (no task is created for them)": [
        "hostile_floods::test_no_task_is_started_for_calls_beyond_max_calls"
    ],
    "ping flood by a peer that reads nothing (we stop reading; memory flat)": [
        "hostile_floods::test_pings_of_a_peer_that_reads_nothing",
        "hostile_floods::test_a_peer_that_reads_nothing_of_its_answers",
        "hostile_servers::test_pings_of_a_server_that_reads_nothing",
    ],
    "10,000 metadata keys": [
        "hostile_lifecycles::test_metadata_of_10000_keys",
        "hostile_lifecycles::test_a_start_that_is_none[metadata of 10,000 keys]",
    ],
    "a 1 MB method name": ["hostile_lifecycles::test_a_method_name_of_a_megabyte"],
    "nesting 10^6 deep, in the envelope": ["hostile_envelopes::test_nesting_without_end[envelope]"],
    "nesting 10^6 deep, in a payload": [
        "hostile_envelopes::test_nesting_without_end[payload]",
        "hostile_envelopes::test_nesting_without_end_in_parts",
    ],
    "every truncation of a valid message": [
        "hostile_envelopes::test_every_truncation_of_a_valid_message"
    ],
    "declared lengths of 2^32-1 for array": [
        "hostile_envelopes::test_what_cannot_be_decoded[a length of 2^32-1 for an array]",
        "hostile_envelopes::test_what_cannot_be_decoded[a length of 2^32-1 for the message]",
    ],
    "declared lengths of 2^32-1 for map": [
        "hostile_envelopes::test_what_cannot_be_decoded[a length of 2^32-1 for a map]"
    ],
    "declared lengths of 2^32-1 for bin": [
        "hostile_envelopes::test_what_cannot_be_decoded[a length of 2^32-1 for bytes]"
    ],
    "declared lengths of 2^32-1 for ext": [
        "hostile_envelopes::test_what_cannot_be_decoded[a length of 2^32-1 for an ext]"
    ],
    "invalid UTF-8": [
        "hostile_envelopes::test_text_that_is_no_utf8",
        "hostile_envelopes::test_what_cannot_be_decoded[invalid UTF-8 in a name]",
        "hostile_envelopes::test_a_bad_payload_fails_its_call_alone[invalid UTF-8]",
        "hostile_websockets::test_a_frame_that_is_none[text that is no UTF-8]",
        "hostile_websockets::test_a_frame_that_is_none[a close whose reason is no UTF-8]",
    ],
    "lone surrogates": [
        "hostile_envelopes::test_what_cannot_be_decoded[lone surrogates in a name]",
        "hostile_envelopes::test_what_cannot_be_decoded[lone surrogates in a payload]",
    ],
    "BOM": ["hostile_envelopes::test_what_cannot_be_decoded[a BOM]"],
    "trailing bytes": ["hostile_envelopes::test_what_cannot_be_decoded[trailing bytes]"],
    "1e999": [
        "hostile_envelopes::test_what_cannot_be_decoded[1e999 in the envelope]",
        "hostile_envelopes::test_a_bad_payload_fails_its_call_alone[1e999]",
    ],
    "a 5,000-digit integer": [
        "hostile_envelopes::test_what_cannot_be_decoded[a 5,000-digit integer in the envelope]",
        "hostile_envelopes::test_a_bad_payload_fails_its_call_alone[a 5,000-digit integer]",
    ],
    "duplicate keys": [
        "hostile_envelopes::test_duplicate_keys_in_the_envelope",
        "hostile_envelopes::test_what_cannot_be_decoded[two types]",
        "hostile_envelopes::test_a_strange_payload_is_taken_as_it_comes[a key that comes twice]",
    ],
    "text where binary was negotiated and the reverse": [
        "hostile_envelopes::test_text_where_binary_was_agreed_and_the_reverse"
    ],
    "a message one byte too long": [
        "hostile_envelopes::test_the_longest_message_and_one_byte_more",
        "hostile_envelopes::test_a_message_that_is_much_too_long",
        "hostile_envelopes::test_a_limit_counts_bytes_and_not_characters",
        "hostile_envelopes::test_a_length_in_front_that_cannot_be",
    ],
    "endless fragments": [
        "hostile_websockets::test_endless_fragments[of a thousand bytes]",
        "hostile_websockets::test_endless_pongs_and_pings",
    ],
    "empty fragments": [
        "hostile_websockets::test_endless_fragments[of nothing]",
        "hostile_websockets::test_a_message_in_fragments_of_any_size",
    ],
    "one-byte fragments": [
        "hostile_websockets::test_endless_fragments[of one byte]",
        "hostile_websockets::test_a_message_in_fragments_of_any_size",
    ],
    "handshakes that trickle": [
        "hostile_handshakes::test_handshakes_that_trickle",
        "hostile_servers::test_an_answer_to_the_handshake_that_is_none[headers that trickle]",
    ],
    "handshakes that stall half-way": [
        "hostile_handshakes::test_handshakes_that_stop_half_way[stall]"
    ],
    "handshakes that carry bytes that are not ASCII in any header": [
        "hostile_handshakes::test_a_request_that_is_no_handshake[Host]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Upgrade]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Connection]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Sec-WebSocket-Key]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Sec-WebSocket-Version]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Sec-WebSocket-Protocol]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Sec-WebSocket-Extensions]",
        "hostile_handshakes::test_a_request_that_is_no_handshake[Origin]",
        (
            "hostile_servers::test_an_answer_to_the_handshake_that_is_none"
            "[bytes that are not ASCII in every header]"
        ),
    ],
    "a connection that sends a ping behind one that closed it": [
        "hostile_websockets::test_what_comes_behind_a_close[a ping]",
        "hostile_websockets::test_a_close_of_ours_that_is_not_answered[by a ping]",
        "hostile_servers::test_what_a_server_says_behind_its_close[a ping]",
    ],
    "a connection that sends a second message behind one that closed it": [
        "hostile_websockets::test_what_comes_behind_a_close[messages]",
        "hostile_websockets::test_a_close_of_ours_that_is_not_answered[by messages without end]",
        "hostile_servers::test_what_a_server_says_behind_its_close[a message]",
    ],
    "a server that is the hostile side: items nobody asked for": [
        "hostile_servers::test_a_server_that_breaks_the_rules[an item nobody asked for]",
        "hostile_servers::test_items_without_end_after_a_cancel",
    ],
    "a server that is the hostile side: two results": [
        "hostile_servers::test_a_server_that_breaks_the_rules[two results]"
    ],
    "a server that is the hostile side: an endless rejection body": [
        "hostile_servers::test_an_answer_to_the_handshake_that_is_none[an endless rejection body]"
    ],
}

#: What may break → the tests, in the same way.
FAULTS: dict[str, list[str]] = {
    "the peer killed with SIGKILL in mid-stream": [
        "faults_processes::test_the_server_is_killed",
        "faults_processes::test_a_client_is_killed",
    ],
    "TCP reset at every stage of a call": [
        "faults_network::test_a_reset_at_every_stage",
        "faults_network::test_a_reset_at_any_time",
    ],
    "half-open connection: noticed within `ping_interval + ping_timeout`": [
        "faults_network::test_a_black_hole",
        "faults_processes::test_a_client_stands_still",
        "faults_processes::test_the_server_stands_still",
    ],
    "one-way black hole: noticed within `ping_interval + ping_timeout`": [
        "faults_network::test_a_black_hole[up]",
        "faults_network::test_a_black_hole[down]",
    ],
    "a peer that stops reading (deadlines still fire, `aclose` is bounded)": [
        "faults_network::test_a_server_that_stops_reading",
        "faults_network::test_a_client_that_stops_reading",
        "faults_network::test_deadlines_fire_over_a_black_hole",
    ],
    "cut after every single byte count of a conversation": [
        "faults_network::test_cut_after_every_so_many_bytes"
    ],
    "the same bytes in one-byte segments and in one piece: the same outcome": [
        "faults_network::test_single_bytes_make_no_difference"
    ],
    "cancellation at every checkpoint of every public operation": [
        "cancellation::test_on_a_connection",
        "cancellation::test_of_a_connection",
        "cancellation::test_connect",
        "cancellation::test_serve",
        "cancellation::test_drain_a_server",
        "cancellation::test_a_local_stream",
        "cancellation::test_every_public_operation_is_swept",
    ],
    "an exception in `authenticate`": [
        "security::test_an_authenticate_that_fails",
        "security::test_an_interrupt_in_authenticate_ends_the_server",
    ],
    "an exception in an interceptor": [
        "faults_hooks::test_an_interceptor_that_raises",
        "faults_hooks::test_an_interceptor_of_the_client_that_raises",
    ],
    "an exception in a converter": ["faults_hooks::test_a_converter_that_raises"],
    "an exception in a handler": [
        "faults_hooks::test_a_handler_that_raises",
        "faults_hooks::test_a_generator_that_raises",
        "faults_hooks::test_a_context_that_raises",
        "faults_hooks::test_results_and_items_that_cannot_be",
    ],
    "an exception in cleanup": [
        "faults_hooks::test_a_cleanup_that_raises",
        "faults_hooks::test_a_cleanup_that_yields",
    ],
    "an exception in a callback": ["faults_hooks::test_a_callback_that_raises"],
    "an exception in the uploaded iterator": [
        "faults_hooks::test_an_uploaded_iterator_that_raises",
        "faults_hooks::test_an_iterable_that_is_none",
    ],
    "KeyboardInterrupt in every phase: out within two seconds, `finally` blocks run": [
        "faults_processes::test_control_c"
    ],
    "a handler that raises an exception group: one error, its parts in `causes`": [
        "faults_hooks::test_a_handler_that_raises_a_group"
    ],
    "cleanup that hangs: its budget, then dropped and reported": [
        "faults_hooks::test_a_cleanup_that_hangs",
        "faults_hooks::test_a_handler_that_cannot_be_stopped",
    ],
    "SIGTERM: what runs may finish within the grace period": [
        "process::test_nothing_runs",
        "process::test_what_finishes_within_the_grace_period",
        "process::test_what_does_not_finish",
        "process::test_cleanup_that_takes_its_time",
    ],
    "out of file descriptors: the accept loop recovers": ["shortage::test_out_of_file_descriptors"],
    "TLS expired": ["tls::test_a_certificate_that_has_expired"],
    "TLS for the wrong host": ["tls::test_a_certificate_for_another_host"],
    "plaintext on a TLS port": ["tls::test_plaintext_on_the_tls_port"],
    "a stall in the TLS handshake": [
        "tls::test_handshakes_that_stall_break_off_or_are_none",
        "tls::test_a_server_that_stalls_in_the_handshake",
    ],
    "TLS that is closed without a word": [
        "hostile_handshakes::test_a_tls_client_that_goes_without_notify"
    ],
}

#: What nobody gets at → the tests that show it.
SECURITY: dict[str, list[str]] = {
    "an origin that is missing": ["security::test_origins_that_are_listed_and_others"],
    "an origin that is listed": [
        "security::test_origins_that_are_listed_and_others[Origin: https://example.com]"
    ],
    "the origin `null`": ["security::test_origins_that_are_listed_and_others[Origin: null]"],
    "an origin with another port": [
        "security::test_origins_that_are_listed_and_others[Origin: https://example.com:8443]"
    ],
    "a listed name as a prefix of another": [
        (
            "security::test_origins_that_are_listed_and_others"
            "[Origin: https://example.com.evil.example]"
        )
    ],
    "a listed name as a suffix of another": [
        "security::test_origins_that_are_listed_and_others[Origin: https://evil-example.com]"
    ],
    "no list of origins: the same host only": [
        "security::test_by_default_only_pages_of_the_same_host"
    ],
    "`authenticate` runs before any user code": [
        "security::test_authenticate_runs_before_any_user_code"
    ],
    "a bad credential is `UNAUTHENTICATED`": [
        "security::test_a_credential_over_every_transport",
        "security::test_who_is_refused_reaches_nothing",
    ],
    "a method name such as `__class__`": ["security::test_names_that_are_not_exposed[__class__]"],
    "a method name such as `_private`": ["security::test_names_that_are_not_exposed[_private]"],
    "a method name such as `a.__globals__`": [
        "security::test_names_that_are_not_exposed[a.__globals__]"
    ],
    "an empty method name": ["security::test_names_that_are_not_exposed[]"],
    "a method name that is dotted to excess": ["security::test_names_that_are_not_exposed[..]"],
    "a method name of look-alike characters": ["security::test_names_that_are_not_exposed[\u0430]"],
    "a method that is inherited, and not marked": [
        "security::test_names_that_are_not_exposed[inherited_plain]"
    ],
    "a method that is merely public": [
        "security::test_names_that_are_not_exposed[plain]",
        "security::test_names_below_namespaces_and_objects",
    ],
    "`mask_errors`: the secret is nowhere on the wire": [
        "security::test_masked_errors_are_nowhere_on_the_wire"
    ],
    "an error name on the wire is never looked up as a Python class": [
        "security::test_an_error_name_is_never_looked_up"
    ],
    "TLS verification on by default": [
        "tls::test_an_authority_that_is_not_trusted",
        "tls::test_a_certificate_for_another_host",
        "byte_streams::test_tls_proves_who_is_there",
    ],
    "connection caps, per peer and in all": [
        "security::test_connections_in_all",
        "security::test_connections_of_one_address",
        "security::test_connections_that_never_shake_hands_count",
    ],
    "a smaller budget before authentication": [
        "security::test_bytes_before_authentication",
        "security::test_calls_before_authentication",
        "security::test_a_flood_before_authentication_is_not_read",
    ],
}

CASES = {**HOSTILE, **FAULTS, **SECURITY}


@functools.cache
def read(file: str) -> tuple[set[str], set[str]]:
    """The tests of an end-to-end file, or of one of all layers, and the texts in it, which name its
    cases."""
    folder = TESTS / "end_to_end"
    if not (folder / f"test_{file}.py").exists():
        folder = TESTS
    tree = ast.parse((folder / f"test_{file}.py").read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    tests = {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return tests, {text for text in texts if isinstance(text, str)}


@pytest.mark.parametrize("case", CASES)
def test_a_case_has_its_tests(case: str) -> None:
    assert CASES[case], "no test shows what comes of it"
    for test in CASES[case]:
        found = re.fullmatch(r"(\w+)::(test_\w+)(?:\[(.*)\])?", test)
        assert found is not None, test
        file, name, named = found.groups()
        tests, texts = read(file)
        assert name in tests, f"there is no test {name} in test_{file}.py"
        assert named is None or named in texts, f"{name} has no case {named!r}"
