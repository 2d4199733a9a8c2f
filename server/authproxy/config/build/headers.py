"""Build header rules from the flat options, as oauth2-proxy does."""

from __future__ import annotations

from authproxy_core.settings import ClaimSource, HeaderRule, Secret

from ..read.resolved import ResolvedOptions


def build_request_headers(options: ResolvedOptions) -> tuple[HeaderRule, ...]:
    """Build the headers for upstreams, in oauth2-proxy's order."""
    preserve = not options.boolean("skip_auth_strip_headers")
    email_as_user = options.boolean("prefer_email_to_user")
    rules = []
    password = options.string("basic_auth_password")
    if options.boolean("pass_basic_auth") and password:
        rules.append(_basic_auth_rule(email_as_user, password, preserve))
    if options.boolean("pass_basic_auth") or options.boolean("pass_user_headers"):
        rules.append(_claim_rule("X-Forwarded-Groups", "groups", preserve))
        user = "email" if email_as_user else "user"
        rules.append(_claim_rule("X-Forwarded-User", user, preserve))
        if not email_as_user:
            rules.append(_claim_rule("X-Forwarded-Email", "email", preserve))
        name = "X-Forwarded-Preferred-Username"
        rules.append(_claim_rule(name, "preferred_username", preserve))
    if options.boolean("pass_access_token"):
        rules.append(_claim_rule("X-Forwarded-Access-Token", "access_token", preserve))
    if options.boolean("pass_authorization_header"):
        if options.boolean("pass_basic_auth") and password:
            options.add_problem(
                "pass_authorization_header",
                "can't be used with basic_auth_password, because both set Authorization",
            )
        else:
            rules.append(_claim_rule("Authorization", "id_token", preserve, "Bearer "))
    return tuple(rules)


def build_response_headers(options: ResolvedOptions) -> tuple[HeaderRule, ...]:
    """Build the headers of auth responses, in oauth2-proxy's order."""
    rules = []
    if options.boolean("set_xauthrequest"):
        rules += [
            _claim_rule("X-Auth-Request-User", "user"),
            _claim_rule("X-Auth-Request-Email", "email"),
            _claim_rule("X-Auth-Request-Preferred-Username", "preferred_username"),
            _claim_rule("X-Auth-Request-Groups", "groups"),
        ]
        if options.boolean("pass_access_token"):
            rules.append(_claim_rule("X-Auth-Request-Access-Token", "access_token"))
    if options.boolean("set_basic_auth"):
        password = options.string("basic_auth_password")
        if not password:
            options.add_problem("set_basic_auth", "requires basic_auth_password")
        elif options.boolean("set_authorization_header"):
            options.add_problem(
                "set_basic_auth",
                "can't be used with set_authorization_header, because both set Authorization",
            )
        else:
            email_as_user = options.boolean("prefer_email_to_user")
            rules.append(_basic_auth_rule(email_as_user, password, preserve=False))
    elif options.boolean("set_authorization_header"):
        rules.append(_claim_rule("Authorization", "id_token", prefix="Bearer "))
    return tuple(rules)


def _claim_rule(
    name: str, claim: str, preserve: bool = False, prefix: str = ""
) -> HeaderRule:
    return HeaderRule(name, (ClaimSource(claim, prefix),), preserve)


def _basic_auth_rule(email_as_user: bool, password: str, preserve: bool) -> HeaderRule:
    claim = "email" if email_as_user else "user"
    source = ClaimSource(claim, "", Secret(password))
    return HeaderRule("Authorization", (source,), preserve)
