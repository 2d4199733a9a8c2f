"""The limits of authproxy, as a table that the tests check.

Each row has an option or a constant, whose value is read from the program, and names a
test that shows the effect. ``python -m limits.table`` in ``tests/`` writes the table into
docs/limits.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, TypeAlias

from authproxy.config.options.table import OPTIONS
from authproxy.config.reference import format_default, format_duration

Unit: TypeAlias = Literal["bytes", "characters", "MiB", "s", "days", ""]


@dataclass(frozen=True)
class Limit:
    """A row: ``source`` is an option, or MODULE:CONSTANT for a fixed limit.

    ``proof`` is FILE::FUNCTION below ``tests/``.
    """

    what: str
    source: str
    unit: Unit
    effect: str
    proof: str

    @property
    def option(self) -> str:
        """The option, "" for a fixed limit."""
        return "" if ":" in self.source else self.source

    @property
    def value(self) -> str:
        """The default with its unit."""
        if not self.option:
            module, _, name = self.source.partition(":")
            return with_unit(getattr(import_module(module), name), self.unit)
        option = next(one for one in OPTIONS if one.key == self.option)
        if option.kind == "duration":
            return format_default(option)
        return with_unit(int(str(option.default)), self.unit)


def with_unit(value: float, unit: Unit) -> str:
    """Return *value* as text; bytes in KiB and MiB where that is exact."""
    if unit == "s":
        return format_duration(float(value))
    if unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{int(value) // size} {name}"
    text = str(int(value)) if value == int(value) else str(value)
    return f"{text} {unit}".strip()


SECTIONS: dict[str, tuple[Limit, ...]] = {
    "Requests": (
        Limit("request line and headers", "max_head_bytes", "bytes",
              "431, connection closed",
              "server/http/test_request_head.py::"
              "test_ht26_head_at_limit_accepted_and_above_rejected"),
        Limit("header fields", "max_headers", "", "431, connection closed",
              "server/http/test_request_head.py::"
              "test_head_with_too_many_fields_is_rejected_unparsed"),
        Limit("path and query, percent-encoded", "max_target_bytes", "bytes",
              "414, connection closed",
              "server/http/test_request_head.py::"
              "test_ht26_target_limit_counts_the_encoded_target"),
        Limit("cookies of a request", "authproxy.http.request_head:MAX_COOKIES", "",
              "431, connection closed",
              "server/http/test_request_head.py::"
              "test_head_with_too_many_cookies_or_options_rejected"),
        Limit("connection options", "authproxy.http.request_head:MAX_CONNECTION_OPTIONS",
              "", "431, connection closed",
              "server/http/test_request_head.py::"
              "test_head_with_too_many_cookies_or_options_rejected"),
        Limit("Host", "authproxy_core.request.original:MAX_HOST", "characters", "400",
              "core/test_limits.py::test_host_max_length"),
        Limit("empty lines before a request",
              "authproxy.downstream.h1_connection:MAX_EMPTY_LINES", "",
              "400, connection closed",
              "server/downstream/test_floods.py::"
              "test_empty_lines_before_request_limited"),
        Limit("pipelined requests handled before other clients",
              "authproxy.downstream.h1_connection:MAX_TURN_REQUESTS", "",
              "the rest waits for its next turn",
              "server/downstream/test_floods.py::"
              "test_turn_handles_limited_number_of_requests"),
        Limit("line with a chunk size, or trailer",
              "authproxy.http.body_decoders:MAX_LINE_BYTES", "bytes",
              "400, connection closed",
              "server/downstream/test_body_limits.py::test_chunked_body_line_limit"),
        Limit("chunk extensions and trailers of a body",
              "authproxy.http.body_decoders:MAX_OVERHEAD_BYTES", "bytes",
              "400, connection closed",
              "server/downstream/test_body_limits.py::test_chunked_body_overhead_limit"),
        Limit("trailers of a body", "authproxy.http.body_decoders:MAX_TRAILERS", "",
              "400, connection closed",
              "server/http/test_body_decoders.py::test_chunked_decoder_trailers_limited"),
        Limit("unread body that is skipped",
              "authproxy.downstream.h1_exchange:MAX_DRAIN_BYTES", "bytes",
              "connection closed after the response",
              "server/downstream/test_body_limits.py::test_unread_body_drain_limit"),
        Limit("form that authproxy reads", "max_form_bytes", "bytes", "413",
              "server/downstream/test_h1_connection.py::"
              "test_connection_body_too_large_gets_413"),
        Limit("parameters of a query or form", "authproxy_core.request.forms:MAX_PAIRS",
              "", "400",
              "core/request/test_forms.py::test_parse_query_length_and_count_limited"),
        Limit("addresses in X-Forwarded-For", "authproxy_core.request.original:MAX_HOPS",
              "", "the client is unknown, so no address rule applies",
              "core/test_limits.py::test_forwarded_for_max_hops"),
        Limit("X-Forwarded-Uri", "authproxy_core.request.original:MAX_URI", "bytes", "400",
              "core/request/test_original.py::test_fh07_malformed_forwarded_uri_rejected"),
    ),
    "Client connections": (
        Limit("connections per worker", "max_connections", "",
              "the longest-idle ones are closed",
              "server/worker/test_worker.py::"
              "test_ht25_connection_limit_closes_longest_idle"),
        Limit("unfinished handshakes per worker", "max_handshakes", "",
              "the oldest are closed",
              "server/worker/test_handshakes.py::test_started_handshakes_are_limited"),
        Limit("received bytes of a connection that wait, besides one read of 250 kB",
              "authproxy.downstream.client_stream:RECEIVE_HIGH_WATER", "bytes",
              "reading pauses",
              "server/downstream/test_floods.py::"
              "test_pipelined_requests_without_reading_pause_and_are_bounded"),
        Limit("bytes from upstreams that clients have not taken, in all, per worker",
              "authproxy.loop.receive_buffer:UNSENT_BUDGET", "bytes",
              "less is read at once, down to the next limit",
              "server/downstream/test_unsent_bytes.py::"
              "test_all_stalled_downloads_share_a_budget"),
        Limit("bytes read for a download while others use up that budget",
              "authproxy.loop.receive_buffer:MIN_READ_BYTES", "bytes",
              "nothing more is read before the client takes them",
              "server/downstream/test_unsent_bytes.py::"
              "test_one_stalled_download_holds_one_read"),
        Limit("open files for each client connection",
              "authproxy.net.descriptors:DESCRIPTORS_PER_CLIENT", "",
              "fewer connections than max_connections, with a warning at start",
              "server/worker/test_worker.py::"
              "test_connections_beyond_descriptor_limit_make_room"),
        Limit("receiving a head", "head_timeout", "s", "408, connection closed",
              "server/downstream/test_h1_connection.py::test_connection_slow_head_gets_408"),
        Limit("time between two requests", "idle_timeout", "s", "connection closed",
              "server/downstream/test_h1_connection.py::"
              "test_connection_idle_timeout_closes"),
        Limit("time without progress of a response", "write_timeout", "s",
              "connection reset",
              "server/downstream/test_h1_connection.py::"
              "test_ht28_connection_write_timeout_closes"),
        Limit("PROXY protocol header", "authproxy.net.proxy_protocol:MAX_HEADER_BYTES",
              "bytes", "connection closed",
              "server/net/test_proxy_protocol_limits.py::"
              "test_proxy_protocol_v2_length_limit"),
        Limit("receiving a PROXY protocol header",
              "authproxy.net.proxy_protocol:HEADER_TIMEOUT", "s", "connection closed",
              "server/net/test_proxy_protocol_limits.py::"
              "test_proxy_protocol_incomplete_header_times_out"),
        Limit("metrics connections per worker",
              "authproxy.worker.metrics_listener:MAX_CONNECTIONS", "",
              "the longest-idle ones are closed",
              "server/metrics/test_metrics.py::"
              "test_metrics_listener_at_limit_closes_oldest_connections"),
    ),
    "Upstreams": (
        Limit("connections per upstream and worker", "upstream_connections", "",
              "requests wait, then 503",
              "server/upstream/test_pool.py::test_pool_at_limit_queues_connect"),
        Limit("idle connections per upstream and worker", "upstream_idle_connections", "",
              "further ones are closed",
              "server/upstream/test_forwarder.py::test_forwarder_idle_connection_limit"),
        Limit("connecting", "upstream_connect_timeout", "s", "504",
              "server/upstream/test_forwarder.py::test_forwarder_connect_timeout"),
        Limit("idle connection", "upstream_idle_timeout", "s", "connection closed",
              "server/upstream/test_forwarder.py::"
              "test_forwarder_idle_timeout_closes_connection"),
        Limit("time until the head of a response", "upstream_timeout", "s", "504",
              "server/upstream/test_forwarder.py::test_forwarder_no_response_gets_504"),
        Limit("heads of a response", "authproxy.http.upstream_response:MAX_HEAD_BYTES",
              "bytes", "502",
              "server/upstream/test_forwarder.py::test_forwarder_endless_head_rejected"),
        Limit("1xx responses", "authproxy.http.upstream_response:MAX_INFORMATIONAL", "",
              "502",
              "server/upstream/test_forwarder.py::test_forwarder_informational_limit"),
        Limit("body of a signed request", "authproxy_core.upstreams.signing:MAX_BODY_BYTES",
              "bytes", "413",
              "server/upstream/test_signed.py::test_signature_body_too_large_gets_413"),
        Limit("time until a WebSocket notices that its session ended",
              "upgrade_check_interval", "s", "WebSocket closed",
              "server/net/test_tunnel.py::test_tunnel_session_revoked_is_closed"),
    ),
    "Sessions": (
        Limit("cookies of one session", "session_cookie_max_parts", "",
              "the login fails, and the page says so",
              "core/login/test_claims.py::"
              "test_ck29_session_too_large_for_cookies_shows_error_page"),
        Limit("one cookie", "authproxy_core.sessions.cookies:MAX_COOKIE_BYTES", "bytes",
              "the value is split",
              "core/sessions/test_cookies.py::test_set_splits_above_4000_bytes"),
        Limit("sealed value", "authproxy_core.sessions.sealing:MAX_SEALED_BYTES", "bytes",
              "no session; the value is not decoded",
              "core/test_limits.py::test_sealed_value_max_length"),
        Limit("stored session", "authproxy_core.sessions.formats:MAX_STORED_BYTES", "bytes",
              "no session; the value is not decoded",
              "core/test_limits.py::test_stored_session_max_length"),
        Limit("values of one cookie name that are tried",
              "authproxy_core.sessions.cookies:MAX_CANDIDATES", "",
              "the first and the last ones count",
              "core/sessions/test_twin_cookies.py::"
              "test_candidate_values_first_and_last_of_many"),
        Limit("cache of sessions, per worker", "session_cache_size", "bytes",
              "entries that are not used are evicted",
              "core/test_small_parts.py::test_session_cache_bounded_and_keeps_used_entries"),
        Limit("time without a response of the provider after which no session waits for it",
              "authproxy_core.sessions.refresh_cache:SLOW_FAILURE", "s",
              "one session tries again after each 10s, others use their valid sessions",
              "core/sessions/test_unresponsive_provider.py::"
              "test_sessions_do_not_wait_for_an_unresponsive_provider"),
        Limit("entries of the refresh cache",
              "authproxy_core.sessions.refresh_cache:MAX_ENTRIES", "",
              "the oldest are evicted",
              "core/sessions/test_refresh.py::test_refresh_cache_bounded"),
    ),
    "Logins": (
        Limit("redirect target", "authproxy_core.login.redirects:MAX_TARGET_BYTES", "bytes",
              "414 with a page that says so",
              "core/login/test_state.py::test_deep_link_too_long_is_told"),
        Limit("state parameter", "authproxy_core.login.state:MAX_STATE_LENGTH", "characters",
              "403", "core/test_limits.py::test_state_max_length"),
        Limit("logins of one browser", "cookie_csrf_slots", "",
              "the oldest login is canceled",
              "core/login/test_callback.py::"
              "test_login_above_slot_limit_clears_oldest_login"),
        Limit("duration of a login", "cookie_csrf_expire", "s",
              "the login restarts once",
              "core/login/test_loop_guard.py::test_expired_login_restarts"),
        Limit("logins that a process knows to be finished",
              "authproxy_core.login.state:MAX_USED_STATES", "", "the oldest are evicted",
              "core/login/test_callback.py::test_used_logins_are_bounded"),
        Limit("logins nested in a redirect target",
              "authproxy_core.login.redirects:MAX_WRAPPINGS", "", "the target does not count",
              "core/login/test_redirects.py::"
              "test_or44_login_page_with_other_target_rejected"),
        Limit("login_hint of a third party", "authproxy_core.login.third_party:MAX_HINT_LENGTH",
              "characters", "400",
              "core/login/test_third_party.py::"
              "test_third_party_hint_of_other_form_rejected"),
        Limit("logins in a row that are denied, or whose session is not kept",
              "authproxy_core.login.loop_guard:LOOP_THRESHOLD", "", "429",
              "core/login/test_shared_loops.py::test_denied_login_loop_ends_"
              "at_threshold_whatever_process_responds"),
        Limit("logins in a row with a valid session",
              "authproxy_core.login.loop_guard:SIGNED_IN_THRESHOLD", "", "429",
              "core/login/test_shared_loops.py::test_signed_in_loop_ends_"
              "at_threshold_whatever_process_responds"),
        Limit("error description of a provider in the log",
              "authproxy_core.oidc.provider_errors:MAX_DESCRIPTION_LENGTH", "characters",
              "the rest is cut",
              "core/login/test_provider_errors.py::test_description_that_is_long_is_cut"),
        Limit("time that a login waits for discovery",
              "authproxy_core.providers.readiness:READY_TIMEOUT", "s", "503",
              "core/login/test_flow.py::test_start_before_discovery_shows_error_page"),
        Limit("failed password attempts of a client per minute",
              "authproxy_core.access.attempts:MAX_ATTEMPTS_PER_CLIENT", "", "429",
              "core/access/test_attempts.py::test_client_limited_whatever_the_user"),
        Limit("failed password attempts for a user per minute",
              "authproxy_core.access.attempts:MAX_ATTEMPTS_PER_USER", "",
              "429, except for clients that know the password",
              "core/access/test_attempts.py::test_user_limited_in_any_case_from_any_client"),
        Limit("failed password attempts per minute",
              "authproxy_core.access.attempts:MAX_ATTEMPTS_TOTAL", "",
              "one attempt for each client",
              "core/access/test_attempts.py::"
              "test_flood_from_many_clients_leaves_one_attempt_to_each"),
        Limit("passwords that wait for bcrypt, per worker",
              "authproxy.serve.computations:MAX_COMPUTATIONS", "", "503",
              "server/serve/test_computations.py::"
              "test_computations_wait_for_few_threads_and_delay_no_other_work"),
        Limit("threads that compute bcrypt, per worker",
              "authproxy.serve.computations:THREADS", "", "further passwords wait",
              "server/serve/test_computations.py::"
              "test_computations_wait_for_few_threads_and_delay_no_other_work"),
        Limit("user name and password, each",
              "authproxy_core.request.authorization:MAX_PASSWORD", "bytes", "401",
              "core/test_limits.py::test_password_max_length"),
    ),
    "Tokens and providers": (
        Limit("token", "authproxy_core.oidc.jwt:MAX_TOKEN_BYTES", "bytes",
              "rejected before the signature is verified",
              "core/test_limits.py::test_token_max_length"),
        Limit("keys of a key set", "authproxy_core.oidc.jwt:MAX_KEYS", "",
              "the rest is ignored", "core/test_limits.py::test_jwks_max_keys"),
        Limit("subject", "authproxy_core.oidc.jwt:MAX_SUBJECT_LENGTH", "characters",
              "token rejected", "core/test_limits.py::test_subject_max_length"),
        Limit("depth of claims", "authproxy_core.identity.claims:MAX_DEPTH", "",
              "the login fails", "core/test_limits.py::test_claims_max_depth"),
        Limit("difference of clocks", "clock_skew", "s", "token rejected",
              "core/test_limits.py::test_token_times_within_leeway"),
        Limit("age of a logout token", "authproxy_core.oidc.logout_token:MAX_TOKEN_AGE", "s",
              "400", "core/test_limits.py::test_logout_token_max_age"),
        Limit("age of the keys of a provider", "authproxy_core.providers.jwks:MAX_AGE", "s",
              "the next token fetches them again",
              "core/providers/test_keys.py::"
              "test_withdrawn_key_ends_without_new_tokens_within_max_age"),
        Limit("interval of key fetches that tokens cause",
              "authproxy_core.providers.jwks:REFETCH_INTERVAL", "s",
              "tokens with unknown keys are rejected",
              "core/access/test_credentials_bearer.py::"
              "test_jw10_jw11_unknown_keys_limit_jwks_requests"),
        Limit("pages of a list of groups", "authproxy_core.providers.api:MAX_PAGES", "",
              "the login fails", "core/test_limits.py::test_group_pages_limit"),
        Limit("Authorization field with a token",
              "authproxy_core.request.authorization:MAX_CREDENTIALS", "bytes",
              "it does not count", "core/test_limits.py::test_credentials_max_length"),
        Limit("signature of a bearer token is verified again after",
              "authproxy_core.access.credentials:TOKEN_CACHE_TTL", "s",
              "the key set is read again",
              "core/access/test_credentials_bearer.py::"
              "test_bearer_token_with_long_lifetime_verified_again"),
        Limit("head of a response", "authproxy.net.idp_client:MAX_HEAD_BYTES", "bytes",
              "the request fails",
              "server/net/test_idp_client.py::test_fetch_endless_head_rejected"),
        Limit("connections per origin and worker", "provider_connections", "",
              "requests wait",
              "server/net/test_idp_client.py::"
              "test_fetch_parallel_requests_respect_pool_size"),
        Limit("connecting to the provider", "provider_connect_timeout", "s",
              "the request fails",
              "server/net/test_idp_client.py::test_fetch_connect_timeout"),
    ),
    "HTTP/2": (
        Limit("concurrent requests of a connection", "authproxy.http2.streams:MAX_STREAMS",
              "", "further ones are refused (REFUSED_STREAM)",
              "server/downstream/test_h2_connection.py::"
              "test_h2_streams_above_limit_refused"),
        Limit("fields above max_headers, for parts of the Cookie field",
              "authproxy.http2.protocol:MAX_COOKIES", "",
              "connection closed (ENHANCE_YOUR_CALM)",
              "server/http2/test_hpack.py::test_decoder_too_many_fields_close"),
        Limit("compressed characters that are rare in headers, in a head",
              "authproxy.http2.huffman:MAX_SLOW_BYTES", "bytes",
              "connection closed (ENHANCE_YOUR_CALM)",
              "server/http2/test_hpack.py::test_decoder_rare_characters_are_bounded"),
        Limit("table of repeated fields", "authproxy.http2.protocol:TABLE_BYTES", "bytes",
              "the oldest entries are evicted",
              "server/http2/test_hpack.py::test_decoder_table_is_bounded"),
        Limit("response that the client takes within write_timeout",
              "authproxy.downstream.h2_connection:MIN_PROGRESS", "bytes",
              "if less, the request is reset",
              "server/downstream/test_h2_turns.py::"
              "test_h2_response_without_window_is_reset_in_time"),
        Limit("body of a request that is not read", "authproxy.http2.streams:STREAM_WINDOW",
              "bytes", "the client has to wait",
              "server/downstream/test_windows.py::test_upload_memory_bounded"),
        Limit("frames without use, beyond those of requests",
              "authproxy.http2.credit:MAX_CREDIT", "",
              "connection closed (ENHANCE_YOUR_CALM)",
              "server/downstream/test_h2_connection.py::test_h2_flood_closes_connection"),
        Limit("connections to one upstream", "authproxy.upstream.h2_pool:MAX_CONNECTIONS",
              "", "requests wait, then 503",
              "server/upstream/test_h2_limits.py::test_h2_upstream_connection_limit"),
    ),
    "Session stores": (
        Limit("value", "authproxy.stores.base:MAX_VALUE", "bytes", "503",
              "server/stores/test_stores.py::test_st07_value_above_limit_rejected"),
        Limit("members of a set", "authproxy.stores.base:MAX_MEMBERS", "", "503",
              "server/stores/test_store_limits.py::test_sqlite_set_member_limit"),
        Limit("reply of Redis", "authproxy.stores.redis_connection:MAX_REPLY", "bytes",
              "503, new connection",
              "server/stores/test_store_limits.py::test_redis_connection_reply_limit"),
        Limit("commands that wait for Redis",
              "authproxy.stores.redis_connection:MAX_PENDING_COMMANDS", "", "503",
              "server/stores/test_store_limits.py::test_redis_connection_queue_limit"),
        Limit("operations that wait for SQLite",
              "authproxy.stores.sqlite_thread:MAX_QUEUED_JOBS", "", "503",
              "server/stores/test_store_limits.py::test_sqlite_thread_queue_limit"),
    ),
    "Access rules, templates, static files": (
        Limit("ambiguous path that is compared in each spelling",
              "authproxy_core.access.path_variants:MAX_AMBIGUOUS_BYTES", "bytes",
              "it has to satisfy all rules",
              "core/access/test_access_rules.py::"
              "test_rule_table_long_ambiguous_path_must_meet_all_rules"),
        Limit("cached decisions of access rules",
              "authproxy_core.access.rules:MAX_CACHED_RESULTS", "",
              "the cache is cleared",
              "core/access/test_access_rules.py::test_rule_table_cached_results_bounded"),
        Limit("nested calls of page templates", "authproxy_core.templates.syntax:MAX_DEPTH",
              "", "the template fails",
              "core/templates/test_templates.py::test_render_nested_calls_bounded"),
        Limit("logo", "authproxy.config.read.files:MAX_LOGO_BYTES", "bytes",
              "error at start",
              "server/config/test_files.py::test_logo_missing_or_too_large_rejected"),
        Limit("entries of a directory listing",
              "authproxy.static.static_files:MAX_ENTRIES", "",
              "the page says that there are more",
              "server/static/test_static_files.py::test_static_truncated_listing_is_marked"),
        Limit("symlinks of a path", "authproxy.static.open_beneath:MAX_SYMLINKS", "", "403",
              "server/static/test_static_files.py::test_static_symlink_limit"),
    ),
    "Logs and processes": (
        Limit("lines that wait for a slow reader", "authproxy.logs.writer:MAX_QUEUED_BYTES",
              "bytes", "further lines are dropped and counted",
              "server/logs/test_logger.py::"
              "test_log_writer_slow_reader_drops_and_counts_lines"),
        Limit("message or request target in a line",
              "authproxy.logs.redact:MAX_TEXT_LENGTH", "characters", "clipped",
              "server/logs/test_json_formatter.py::"
              "test_log_lines_of_long_client_input_are_bounded"),
        Limit("log file", "logging_max_size", "MiB", "the file is rotated",
              "server/logs/test_file.py::test_log_file_rotated_before_max_size"),
        Limit("age of rotated log files", "logging_max_age", "days",
              "older files are removed",
              "server/logs/test_file.py::test_backups_limits_remove_oldest_only"),
        Limit("requests in flight at shutdown", "drain_timeout", "s", "aborted",
              "server/worker/test_worker.py::"
              "test_drain_timeout_aborts_requests_in_flight"),
        Limit("preparing a reload", "authproxy.process.reload_coordinator:PREPARE_TIMEOUT",
              "s", "the old configuration stays",
              "server/reload/test_reload_coordinator.py::"
              "test_prepare_timeout_aborts_reload"),
        Limit("spans that wait for the collector", "authproxy.tracing.limits:MAX_QUEUED_SPANS",
              "", "further spans are dropped and counted",
              "server/tracing/test_span_queue.py::"
              "test_full_queue_drops_and_counts_spans"),
        Limit("sending spans at shutdown", "authproxy.tracing.limits:FLUSH_TIMEOUT",
              "s", "the remaining spans are dropped",
              "server/tracing/test_traces.py::"
              "test_shutdown_does_not_wait_for_hanging_collector"),
    ),
}  # fmt: skip
LIMITS = tuple(row for rows in SECTIONS.values() for row in rows)
HEAD = """\
# Limits

Everything that a client, an upstream, a provider or a store can send has a limit. A limit without
an option is fixed. The tests check that each named option or constant has this default, and that
the test exists. Labels of metrics are a closed set; other values count as `other`.
"""


def page() -> str:
    """Return docs/limits.md."""
    parts = [HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f"\n## {section}\n\n")
        parts.append("| limit | option | default | at the limit | test |\n")
        parts.append("| --- | --- | --- | --- | --- |\n")
        for row in rows:
            option = f"`{row.option}`" if row.option else "fixed"
            test = row.proof.partition("::")[2]
            parts.append(
                f"| {row.what} | {option} | {row.value} | {row.effect} | `{test}` |\n"
            )
    return "".join(parts)


if __name__ == "__main__":
    (Path(__file__).parents[2] / "docs" / "limits.md").write_text(page())
