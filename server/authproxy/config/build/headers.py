"""The options about headers, as rules: what oauth2-proxy makes of them."""

from __future__ import annotations

from authproxy_core.settings.root import ClaimSource, HeaderRule, Secret

from ..read.resolved import ResolvedOptions


def request_rules(collected: ResolvedOptions) -> tuple[HeaderRule, ...]:
    """What the upstream is told, in oauth2-proxy's order."""
    keep = not collected.boolean("skip_auth_strip_headers")
    email_as_user = collected.boolean("prefer_email_to_user")
    rules = []
    password = collected.string("basic_auth_password")
    if collected.boolean("pass_basic_auth") and password:
        rules.append(_basic(email_as_user, password, keep))
    if collected.boolean("pass_basic_auth") or collected.boolean("pass_user_headers"):
        rules.append(_rule("X-Forwarded-Groups", "groups", keep))
        user = "email" if email_as_user else "user"
        rules.append(_rule("X-Forwarded-User", user, keep))
        if not email_as_user:
            rules.append(_rule("X-Forwarded-Email", "email", keep))
        name = "X-Forwarded-Preferred-Username"
        rules.append(_rule(name, "preferred_username", keep))
    if collected.boolean("pass_access_token"):
        rules.append(_rule("X-Forwarded-Access-Token", "access_token", keep))
    if collected.boolean("pass_authorization_header"):
        if collected.boolean("pass_basic_auth") and password:
            collected.add_problem(
                "pass_authorization_header",
                "can't be used with basic_auth_password; both set Authorization",
            )
        else:
            rules.append(_rule("Authorization", "id_token", keep, "Bearer "))
    return tuple(rules)


def response_rules(collected: ResolvedOptions) -> tuple[HeaderRule, ...]:
    """What the gateway is told, in oauth2-proxy's order."""
    rules = []
    if collected.boolean("set_xauthrequest"):
        rules += [
            _rule("X-Auth-Request-User", "user"),
            _rule("X-Auth-Request-Email", "email"),
            _rule("X-Auth-Request-Preferred-Username", "preferred_username"),
            _rule("X-Auth-Request-Groups", "groups"),
        ]
        if collected.boolean("pass_access_token"):
            rules.append(_rule("X-Auth-Request-Access-Token", "access_token"))
    if collected.boolean("set_basic_auth"):
        password = collected.string("basic_auth_password")
        if not password:
            collected.add_problem("set_basic_auth", "needs basic_auth_password")
        elif collected.boolean("set_authorization_header"):
            collected.add_problem(
                "set_basic_auth",
                "can't be used with set_authorization_header; both set Authorization",
            )
        else:
            email_as_user = collected.boolean("prefer_email_to_user")
            rules.append(_basic(email_as_user, password, keep=False))
    elif collected.boolean("set_authorization_header"):
        rules.append(_rule("Authorization", "id_token", prefix="Bearer "))
    return tuple(rules)


def _rule(name: str, claim: str, keep: bool = False, prefix: str = "") -> HeaderRule:
    return HeaderRule(name, (ClaimSource(claim, prefix),), keep)


def _basic(email_as_user: bool, password: str, keep: bool) -> HeaderRule:
    claim = "email" if email_as_user else "user"
    source = ClaimSource(claim, "", Secret(password))
    return HeaderRule("Authorization", (source,), keep)
