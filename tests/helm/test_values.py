"""Values that the chart refuses or explains, and its own schema."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml

from helm.chart import CHART, KUBERNETES, Objects, run, template
from support.programs import find

pytestmark = pytest.mark.skipif(not find("helm"), reason="no helm")
CREDENTIALS = "config: {clientID: a, clientSecret: b, cookieSecret: 0123456789abcdef}\n"


def problems(values: str) -> list[str]:
    """Return the problems that a rendering with *values* reports."""
    done = template(values)
    assert done.returncode != 0
    return [line[4:] for line in done.stderr.splitlines() if line.startswith("  - ")]


def test_chart_without_credentials_is_refused_with_the_remedies() -> None:
    found = problems("htpasswdFile: {enabled: true}")
    assert found.pop() == "htpasswdFile: set entries or existingSecret"
    assert found == [
        f"config.{name}: missing; set it, or config.existingSecret, or remove {key}"
        " from config.requiredSecretKeys"
        for name, key in (
            ("clientID", "client-id"),
            ("clientSecret", "client-secret"),
            ("cookieSecret", "cookie-secret"),
        )
    ]


def test_values_that_cannot_work_are_refused_together() -> None:
    found = problems(
        """
        config:
          clientID: app
          clientSecret: b
          cookieSecret: XXXXXXXXXXXXXXXX
          google: {serviceAccountJson: "{}"}
        image: {registry: quay.io, repository: oauth2-proxy/oauth2-proxy, tag: v7.15.6}
        kubeVersion: "1.22"
        alphaConfig: {enabled: true, existingConfig: a, existingSecret: b, configFile: c}
        authenticatedEmailsFile: {enabled: true}
        htpasswdFile: {enabled: true, entries: [alice-secret]}
        extraArgs: [--provider=oidc, client-secret=secret]
        redis-ha: {enabled: true}
        sessionStorage: {type: redis, redis: {clientType: sentinel}}
        service: {port: 80}
        ingress:
          enabled: true
          extraPaths: [{path: /, backend: {serviceName: app, servicePort: 80}}]
        gatewayApi: {enabled: true}
        applications:
          - {name: a, gateway: traefik, hosts: [a], service: {name: a, port: 80}, query: b}
          - {name: b, gateway: gateway-api, hosts: [b], service: {name: b, port: 80}}
        networkPolicy: {create: true}
        podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}
        metrics: {enabled: false, serviceMonitor: {enabled: true}}
        configuration: {clientID: app}
        pdb: {create: true}
        replicas: 2
        x-anchor: ignored
        used: "1"
        extraEnv: [{name: A, value: "{{ .Values.used }}"}]
        """
    )
    assert [line.partition(":")[0] for line in found] == [
        "configuration", "pdb", "replicas",
        "config.cookieSecret",
        "image.repository", "image.tag", "kubeVersion",
        "extraArgs[1]", "alphaConfig", "alphaConfig",
        "authenticatedEmailsFile", "authenticatedEmailsFile", "htpasswdFile.entries[0]", "config.google",
        "redis-ha.enabled", "sessionStorage.redis.sentinel",
        "service.port", "ingress.hosts", "ingress.extraPaths",
        "gatewayApi.gatewayRef.name", "applications", "applications", "applications",
        "networkPolicy", "podDisruptionBudget",
        "metrics.serviceMonitor",
    ]  # fmt: skip
    assert "use config (clientID" in found[0]
    assert "use podDisruptionBudget" in found[1]
    assert "neither the chart nor a template in the values uses it" in found[2]
    assert "a placeholder that everybody knows" in found[3]
    assert "installs no Redis" in "".join(found)
    assert "secret=" not in "".join(found)
    assert "alice" not in "".join(found)


EMAILS = "authenticatedEmailsFile: {enabled: true, restricted_access: a@example.com}\n"


@pytest.mark.parametrize(
    "values",
    [
        CREDENTIALS,
        "config: {existingSecret: a, configFile: \"email_domains = [\\n 'a', '*'\\n]\"}",
        "config: {existingSecret: a, emailDomains: []}\n"
        "extraArgs: {email-domain: 'a.example,*'}",
        "config: {existingSecret: a, emailDomains: []}\n"
        "extraEnv: [{name: OAUTH2_PROXY_EMAIL_DOMAINS, value: '*'}]",
    ],
)
def test_list_of_emails_with_any_email_allowed_is_refused(values: str) -> None:
    [found] = problems(EMAILS + values)
    assert found.startswith("authenticatedEmailsFile: has no effect with * in")
    assert "set config.emailDomains (in a configFile email_domains) to []" in found


@pytest.mark.parametrize(
    "values",
    [
        "config: {existingSecret: a, configFile: \"email_domains = '*.b.c' # not *\"}",
        "config: {existingSecret: a, existingConfig: a}",
        CREDENTIALS + "extraArgs: [--email-domain=a.example]",
    ],
)
def test_list_of_emails_with_other_domains_is_accepted(values: str) -> None:
    """The value that takes precedence decides."""
    done = template(EMAILS + values)
    assert done.returncode == 0, done.stderr


def test_values_of_another_gateway_are_refused() -> None:
    found = problems(
        """
        config: {existingSecret: sso}
        gatewayApi: {gatewayRef: {name: public}}
        traefik: {middleware: {enabled: true}}
        applications:
          - name: a
            gateway: gateway-api
            hosts: [a]
            service: {name: a, port: 80}
            className: nginx
            tls: [{secretName: a}]
          - {name: b, gateway: traefik, hosts: [b], service: {name: b, port: 80},
             filters: [{type: ExtensionRef}]}
          - {name: c, gateway: ingress-nginx, hosts: [c], service: {name: c, port: 80},
             filters: [{type: ExtensionRef}]}
        metrics: {port: null, serviceMonitor: {enabled: true}}
        """
    )
    assert [line.partition(";")[0] for line in found] == [
        "applications: a: className is for Ingress objects",
        "applications: a: tls is for Ingress objects",
        "applications: b: filters is for gateway-api",
        "applications: c: filters is for gateway-api",
        "metrics.serviceMonitor: has no effect without metrics.port, the port of the "
        "Service",
    ]


def test_schema_names_each_wrong_value() -> None:
    done = template(
        """
        config: {clientId: a, requiredSecretKeys: [client-key]}
        replicaCount: "2"
        sessionStorage: {type: redis-cluster}
        service: {portNumber: 99999}
        readinessProbe: {periodSeconds: 0, httpGet: {path: /}}
        podDisruptionBudget: {minAvailable: half}
        traefik: {middleware: null}
        gatewayApi: null
        """
    )
    assert done.returncode != 0
    for message in (
        "/config': additional properties 'clientId' not allowed",
        "/config/requiredSecretKeys/0': value must be one of",
        "/replicaCount': got string, want integer",
        "/sessionStorage/type': value must be one of 'cookie', 'redis'",
        "/service/portNumber': maximum: got 99,999, want 65,535",
        "/readinessProbe/periodSeconds': minimum: got 0, want 1",
        "additional properties 'httpGet' not allowed",
        "/podDisruptionBudget/minAvailable'",
        "/traefik': missing property 'middleware'",
        "missing property 'gatewayApi'",
    ):
        assert message in done.stderr, message


def test_values_without_effect_are_explained_in_the_notes() -> None:
    done = template(
        """
        config: {existingSecret: sso, clientID: a, forceLegacyConfig: false, configFile: x}
        alphaConfig: {enabled: true}
        checkDeprecation: false
        redis-ha: {enabled: false, replicas: 1}
        initContainers: {waitForRedis: {enabled: true}}
        authCheck: {proxyPrefix: /login}
        traefik: {middleware: {enabled: true}}
        extraObjects:
          - kind: ConfigMap
            metadata: {name: notes}
            data: {notes: '{{ include "authproxy.notes" . | b64enc }}'}
        """
    )
    assert done.returncode == 0, done.stderr
    data = Objects(done.stdout).get("ConfigMap", "notes")["data"]["notes"]
    notes = base64.b64decode(data).decode()
    remarks = notes.partition("Values without effect:\n")[2].splitlines()
    assert [line.split()[0] for line in remarks] == [
        "checkDeprecation", "redis-ha", "initContainers.waitForRedis",
        "config.configFile", "config.clientID,",
    ]  # fmt: skip
    assert "sso-login-authproxy-forward-auth@kubernetescrd" in notes
    url = "http://login-authproxy.sso.svc.cluster.local:80/login/auth"
    assert f"nginx.ingress.kubernetes.io/auth-url: {url}\n" in notes
    signin = "https://$host/login/start?rd=$escaped_request_uri"
    assert f"nginx.ingress.kubernetes.io/auth-signin: {signin}\n" in notes


def test_schema_and_checks_know_each_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = (CHART / "templates" / "_checks.tpl").read_text()
    known = known.partition('define "authproxy.known" -}}')[2].partition("{{-")[0]
    optional = {"containerPort"}
    assert set(known.split()) == values.keys() | optional
    assert schema["properties"].keys() == values.keys() | optional
    assert not list(missing_properties(values, schema, ""))


def missing_properties(values: Any, schema: Any, path: str) -> Any:
    """Yield the paths of *values* that *schema* does not allow."""
    allowed = schema.get("properties")
    if not isinstance(values, dict) or schema.get("additionalProperties", True):
        return
    for key, value in values.items():
        if key not in allowed:
            yield f"{path}/{key}"
        yield from missing_properties(value, allowed.get(key, {}), f"{path}/{key}")


def test_lint_finds_nothing() -> None:
    arguments = ["lint", str(CHART), "--strict", "--kube-version", KUBERNETES]
    done = run(*arguments, "--values", "-", values=CREDENTIALS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
