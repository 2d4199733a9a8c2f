"""The objects that the chart renders for values files of different shapes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.chart import VALUES, Manifest, Objects, contents, rendered, template
from helm.schemas import missing_module, write_schemas
from support.programs import find

pytestmark = pytest.mark.skipif(not find("helm"), reason="no helm")
NAME = "login-authproxy"
CLIENT = {
    "OAUTH2_PROXY_CLIENT_ID": f"{NAME}:client-id",
    "OAUTH2_PROXY_CLIENT_SECRET": f"{NAME}:client-secret",
    "OAUTH2_PROXY_COOKIE_SECRET": f"{NAME}:cookie-secret",
}
COMMON = {f"Deployment/{NAME}", f"Service/{NAME}", f"ServiceAccount/{NAME}"}
CONFIG = "--config=/etc/oauth2_proxy/oauth2_proxy.cfg"
HTTP, HTTPS = "--http-address=0.0.0.0:4180", "--https-address=0.0.0.0:4443"
METRICS = "--metrics-address=0.0.0.0:44180"


def config_of(name: str) -> str:
    """Return oauth2_proxy.cfg of the values file *name*."""
    return contents(rendered(name).get("ConfigMap", NAME))["oauth2_proxy.cfg"]


def sources(volume: str, name: str) -> list[Any]:
    """Return the names and items of the objects in a projected volume."""
    volumes = {one["name"]: one for one in rendered(name).pod["spec"]["volumes"]}
    found = volumes[volume]["projected"]["sources"]
    return [
        (kind, value["name"], [item["path"] for item in value["items"]])
        for source in found
        for kind, value in source.items()
    ]


def test_keycloak_uses_existing_secret_and_its_configuration() -> None:
    objects = rendered("keycloak")
    assert objects.names() == COMMON | {
        f"ConfigMap/{NAME}", f"PodDisruptionBudget/{NAME}", f"Ingress/{NAME}",
        f"Ingress/{NAME}-wiki", f"Ingress/{NAME}-wiki-login",
    }  # fmt: skip
    assert objects.container["args"] == [HTTP, METRICS, CONFIG, "--cookie-name=_sso"]
    assert set(objects.variables.values()) == {
        "keycloak-client:client-id",
        "keycloak-client:client-secret",
        "keycloak-client:cookie-secret",
    }
    assert 'allowed_groups = [ "/staff" ]\n' in config_of("keycloak")
    assert objects.get("Deployment")["spec"]["replicas"] == 2
    assert objects.get("PodDisruptionBudget")["spec"]["minAvailable"] == 1
    spec = objects.get("Ingress", NAME)["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"secretName": "app-tls", "hosts": ["app.example.com"]}]
    (path,) = spec["rules"][0]["http"]["paths"]
    assert path["backend"] == {"service": {"name": NAME, "port": {"number": 80}}}
    assert (path["path"], path["pathType"]) == ("/oauth2", "Prefix")


def test_alpha_configuration_is_a_secret_with_server_and_metrics() -> None:
    objects = rendered("alpha")
    secret = objects.get("Secret", f"{NAME}-alpha")
    assert "reloader.stakater.com/match" in secret["metadata"]["annotations"]
    alpha = yaml.safe_load(contents(secret)["oauth2_proxy.yml"])
    assert alpha["server"] == {"BindAddress": "0.0.0.0:4180"}
    assert alpha["metricsServer"] == {"BindAddress": "0.0.0.0:44180"}
    assert [one["id"] for one in alpha["upstreamConfig"]["upstreams"]] == ["api", "app"]
    assert objects.container["args"] == [
        "--alpha-config=/etc/oauth2_proxy/oauth2_proxy.yml",
        CONFIG,
        "--cookie-domain=.example.com",
        "--skip-provider-button=true",
    ]
    assert config_of("alpha") == 'email_domains = ["example.com"]\n'
    assert objects.variables == {"OAUTH2_PROXY_COOKIE_SECRET": f"{NAME}:cookie-secret"}
    assert sources("authproxy-config", "alpha") == [
        ("configMap", NAME, ["oauth2_proxy.cfg"]),
        ("secret", f"{NAME}-alpha", ["oauth2_proxy.yml"]),
    ]


def test_existing_objects_are_mounted_and_none_is_made() -> None:
    objects = rendered("existing")
    assert objects.names() == {f"Deployment/{NAME}", f"Service/{NAME}"}
    assert sources("authproxy-config", "existing") == [
        ("configMap", "sso-config", ["oauth2_proxy.cfg"]),
        ("secret", "sso-alpha", ["oauth2_proxy.yml"]),
    ]
    emails = objects.pod["spec"]["volumes"][1]["secret"]
    assert emails["secretName"] == "sso-emails"
    assert emails["items"] == [{"key": "staff", "path": "sso-emails"}]
    assert (
        "--authenticated-emails-file=/etc/oauth2-proxy/sso-emails"
        in (objects.container["args"])
    )
    assert objects.variables == {"OAUTH2_PROXY_COOKIE_SECRET": "sso:cookie-secret"}
    assert objects.container["envFrom"] == [
        {"configMapRef": {"name": "sso-environment"}}
    ]
    assert objects.pod["spec"]["serviceAccountName"] == "sso"
    assert [one["name"] for one in objects.container["ports"]] == ["http"]
    assert [one["name"] for one in objects.get("Service")["spec"]["ports"]] == ["http"]


def test_map_of_flags_renders_templates_numbers_and_switches() -> None:
    objects = rendered("args-map")
    args = objects.container["args"]
    assert args[:3] == ["--http-address=0.0.0.0:8080", METRICS, CONFIG]
    assert "--oidc-issuer-url=https://login.example.com" in args
    assert "--logging-max-size=1000000" in args
    assert "--skip-jwt-bearer-tokens" in args
    assert objects.names() == COMMON | {f"ConfigMap/{NAME}"}
    assert objects.variables["OAUTH2_PROXY_CLIENT_ID"] == "login"
    assert objects.container["ports"][0]["containerPort"] == 8080
    assert objects.container["lifecycle"]["preStop"]["exec"]["command"] == [
        "sleep",
        "5",
    ]


def test_list_of_flags_is_passed_as_it_is() -> None:
    objects = rendered("args-list")
    args = objects.container["args"]
    given = [one for one in args if "whitelist" in one or "format" in one]
    assert given == [
        "--whitelist-domain=.example.com",
        "--whitelist-domain=.example.org",
        "--request-logging-format={{.Client}} {{.RequestMethod}} {{.Host}}"
        " {{.RequestURI}} {{.StatusCode}}",
    ]
    assert args[:2] == [HTTP, HTTPS]
    assert objects.variables == CLIENT
    assert contents(objects.get("Secret"))["client-id"] == "github-app"
    spec = objects.get("Service")["spec"]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert spec["loadBalancerSourceRanges"] == ["203.0.113.0/24"]
    assert (spec["ports"][0]["port"], spec["ports"][0]["targetPort"]) == (443, "https")
    for probe in ("livenessProbe", "readinessProbe"):
        assert objects.container[probe]["httpGet"]["scheme"] == "HTTPS"
    assert objects.pod["spec"]["volumes"][-1]["secret"]["secretName"] == "login-tls"


def test_redis_sentinel_has_two_passwords_in_a_secret() -> None:
    objects = rendered("redis-sentinel")
    redis = f"{NAME}-redis-access"
    assert objects.variables == CLIENT | {
        "OAUTH2_PROXY_SESSION_STORE_TYPE": "redis",
        "OAUTH2_PROXY_REDIS_USE_SENTINEL": "true",
        "OAUTH2_PROXY_REDIS_SENTINEL_MASTER_NAME": "sessions",
        "OAUTH2_PROXY_REDIS_SENTINEL_CONNECTION_URLS": "redis://redis-0.redis:26379,"
        "redis://redis-1.redis:26379,redis://redis-2.redis:26379",
        "OAUTH2_PROXY_REDIS_PASSWORD": f"{redis}:redis-password",
        "OAUTH2_PROXY_REDIS_SENTINEL_PASSWORD": f"{redis}:redis-sentinel-password",
    }
    assert contents(objects.get("Secret", redis)) == {
        "redis-password": "redis-password",
        "redis-sentinel-password": "sentinel-password",
    }
    assert "initContainers" not in objects.pod["spec"]


def test_users_emails_and_google_directory_are_mounted() -> None:
    objects = rendered("users")
    assert objects.container["args"] == [
        HTTP,
        METRICS,
        CONFIG,
        f"--authenticated-emails-file=/etc/oauth2-proxy/{NAME}-accesslist",
        "--htpasswd-file=/etc/oauth2_proxy/htpasswd/users.txt",
        "--google-admin-email=admin@example.com",
        "--google-service-account-json=/google/service-account.json",
        "--google-target-principal=directory@example.iam.gserviceaccount.com",
        "--google-group=staff@example.com",
        "--google-group=guests@example.com",
        "--provider=google",
    ]
    users = contents(objects.get("Secret", f"{NAME}-htpasswd-file"))["users.txt"]
    assert users.startswith("backup:$2y$10$")
    emails = contents(objects.get("ConfigMap", f"{NAME}-accesslist"))
    assert emails == {"restricted_user_access": "alice@example.com\nbob@example.org"}
    assert sources("authproxy-config", "users")[1:] == [
        ("secret", f"{NAME}-htpasswd-file", ["htpasswd/users.txt"])
    ]


def test_ingress_has_each_host_with_templates_and_extra_paths() -> None:
    objects = rendered("ingress-hosts")
    ingress = objects.get("Ingress")
    annotations = ingress["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/group.name"] == "login"
    assert ingress["metadata"]["labels"]["zone"] == "internal"
    hosts = [one["host"] for one in ingress["spec"]["rules"]]
    assert hosts == ["login.example.com", "admin.example.com"]
    for rule in ingress["spec"]["rules"]:
        status, everything = rule["http"]["paths"]
        service = status["backend"]["service"]
        assert service == {"name": f"{NAME}-status", "port": {"name": "http"}}
        assert everything["path"] == "/"
    assert objects.container["image"] == "mirror.example.com/authproxy:0.1.0"
    spec = objects.pod["spec"]
    assert spec["imagePullSecrets"] == [{"name": "login-pull"}]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    for one in objects.all:
        assert one["metadata"]["labels"]["team"] == "login"


def test_gateway_api_route_and_middleware() -> None:
    objects = rendered("gateway-api")
    route = objects.get("HTTPRoute", "sso")
    assert route["spec"]["parentRefs"] == [
        {"name": "public", "namespace": "gateways", "sectionName": "https"}
    ]
    assert route["spec"]["hostnames"] == ["app.example.com", "login.example.org"]
    login, everything = route["spec"]["rules"]
    assert login["matches"][0]["path"]["value"] == "/oauth2"
    assert login["filters"][0]["type"] == "RequestHeaderModifier"
    assert everything["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    for rule in (login, everything):
        assert rule["backendRefs"] == [{"name": "sso", "port": 4180}]
    check = objects.get("Middleware", "sso-forward-auth")["spec"]["forwardAuth"]
    url = "http://sso.sso.svc.cluster.local:4180/oauth2/forward_auth"
    assert check["address"] == f"{url}?allowed_groups=admin"
    assert check["addAuthCookiesToResponse"][:2] == ["_oauth2_proxy", "_oauth2_proxy_0"]
    assert "X-Auth-Request-Groups" in check["authResponseHeaders"]
    assert check["trustForwardHeader"] is False


def test_applications_are_reached_through_the_check_only() -> None:
    """Each host has a route for the application and an unchecked one for the login."""
    wiki = rendered("keycloak").get("Ingress", f"{NAME}-wiki")
    annotations = wiki["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io"
    url = f"http://{NAME}.sso.svc.cluster.local:80/oauth2/auth?allowed_groups=wiki"
    assert annotations[f"{prefix}/auth-url"] == url
    signin = "https://$host/oauth2/start?rd=$escaped_request_uri"
    assert annotations[f"{prefix}/auth-signin"] == signin
    assert "X-Auth-Request-Email" in annotations[f"{prefix}/auth-response-headers"]
    assert annotations["cert-manager.io/issuer"] == "main"
    assert backend(wiki) == ("wiki.example.com", "/", "wiki", 3000)
    login = rendered("keycloak").get("Ingress", f"{NAME}-wiki-login")
    assert f"{prefix}/auth-signin" not in login["metadata"]["annotations"]
    assert backend(login) == ("wiki.example.com", "/oauth2", NAME, 80)
    assert login["spec"]["tls"] == wiki["spec"]["tls"]

    app = rendered("seed").get("Ingress", f"{NAME}-app")
    assert app["metadata"]["annotations"] == {
        "traefik.ingress.kubernetes.io/router.middlewares": (
            "sso-errors-sign-in@kubernetescrd,sso-forward-auth@kubernetescrd"
        )
    }
    assert backend(app) == ("app.example.com", "/", "backend", 80)

    route = rendered("gateway-api").get("HTTPRoute", "sso-reports")["spec"]
    assert route["hostnames"] == ["login.example.net"]
    login, reports = route["rules"]
    assert "filters" not in login
    assert login["matches"][0]["path"]["value"] == "/oauth2"
    assert login["backendRefs"] == [{"name": "sso", "port": 4180}]
    (check,) = reports["filters"]
    assert check["extensionRef"]["name"] == "sso-forward-auth"
    assert reports["backendRefs"] == [{"name": "reports", "port": 8080}]


def backend(ingress: Manifest) -> tuple[str, str, str, int]:
    """Return the host, the path, the service and its port of an Ingress."""
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    service = path["backend"]["service"]
    return rule["host"], path["path"], service["name"], service["port"]["number"]


def test_production_scales_and_is_monitored() -> None:
    objects = rendered("production")
    assert "replicas" not in objects.get("Deployment")["spec"]
    scaler = objects.get("HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 12)
    targets = {
        one["resource"]["name"]: one["resource"]["target"]["averageUtilization"]
        for one in scaler["metrics"]
    }
    assert targets == {"cpu": 70, "memory": 80}
    budget = objects.get("PodDisruptionBudget")["spec"]
    assert (budget["minAvailable"], budget["unhealthyPodEvictionPolicy"]) == (
        2, "AlwaysAllow",
    )  # fmt: skip
    policy = objects.get("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    selector = objects.get("Deployment")["spec"]["selector"]["matchLabels"]
    for one in (policy["podSelector"], budget["selector"]):
        assert one["matchLabels"] == selector
    assert selector.items() <= objects.pod["metadata"]["labels"].items()
    assert selector == objects.get("Service")["spec"]["selector"]
    monitor = objects.get("ServiceMonitor")
    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["metadata"]["labels"]["prometheus"] == "main"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"] == selector
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["interval"] == "30s"
    job, node = endpoint["relabelings"]
    assert job == {"targetLabel": "job", "replacement": "authproxy"}  # of the alerts
    assert node["targetLabel"] == "node"
    ports = {one["name"]: one for one in objects.get("Service")["spec"]["ports"]}
    assert ports[endpoint["port"]]["port"] == 9180
    assert objects.variables["OAUTH2_PROXY_REDIS_PASSWORD"] == "redis:password"
    assert "--trusted-proxy-ip=10.43.0.0/16" in objects.container["args"]
    assert objects.pod["spec"]["topologySpreadConstraints"][0]["maxSkew"] == 1


def test_hardened_pod_keeps_defaults_that_it_does_not_replace() -> None:
    objects = rendered("hardened")
    context = objects.container["securityContext"]
    assert context["runAsUser"] == 1000680000
    assert context["readOnlyRootFilesystem"]
    assert context["runAsNonRoot"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert "enabled" not in context
    spec = objects.pod["spec"]
    assert spec["securityContext"] == {"fsGroup": 1000680000, "runAsNonRoot": True}
    assert [one["name"] for one in spec["initContainers"]] == ["sign-in"]
    assert [one["name"] for one in spec["containers"]] == ["authproxy", "mesh"]
    assert not spec["automountServiceAccountToken"]
    assert spec["serviceAccountName"] == "restricted"
    account = objects.get("ServiceAccount", "restricted")
    assert account["metadata"]["annotations"] == {"example.com/role": "sso"}
    assert spec["terminationGracePeriodSeconds"] == 65
    image = "registry.internal.example.com/security/authproxy:0.1.0"
    assert objects.container["image"] == image
    objects.get("ConfigMap", "login-contact")


def test_seed_has_its_two_middlewares_and_its_sign_in_page() -> None:
    """The middlewares of the article, with all headers and the refreshed cookies."""
    objects = rendered("seed")
    errors = objects.get("Middleware", "errors-sign-in")["spec"]["errors"]
    assert errors == {
        "status": ["401-403"],
        "query": "/oauth2/sign_in",
        "service": {"name": NAME, "namespace": "sso", "port": 4180},
    }
    check = objects.get("Middleware", "forward-auth")["spec"]["forwardAuth"]
    assert check["address"] == f"http://{NAME}.sso.svc.cluster.local:4180/oauth2/auth"
    assert check["trustForwardHeader"] is True
    page = contents(objects.get("ConfigMap", f"{NAME}-templates"))["sign_in.html"]
    assert '{{define "sign_in.html"}}' in page
    assert (
        "--custom-templates-dir=/etc/authproxy/templates" in objects.container["args"]
    )
    (copied,) = objects.pod["spec"]["initContainers"]
    assert copied["name"] == "auto-sign-in"


def test_values_without_a_file_of_their_own() -> None:
    """Names of an existing release, Redis standalone, NodePort, Google's key, tables."""
    done = template(
        """
        nameOverride: oauth2-proxy
        image: {digest: "sha256:%s"}
        config:
          clientID: a
          clientSecret: b
          cookieSecret: 0123456789abcdef
          configFile: cookie_name = "__Host-app"
          google: {adminEmail: a@example.com, serviceAccountJson: "{}"}
        sessionStorage:
          type: redis
          redis: {password: pw, standalone: {connectionUrl: "redis://redis:6379"}}
        service: {type: NodePort, nodePort: 30080, ipDualStack: {enabled: true}}
        metrics: {nodePort: 30081}
        traefik: {middleware: {enabled: true, name: check}}
        replicaCount: 3
        podDisruptionBudget: {maxUnavailable: 1}
        securityContext: {enabled: false}
        livenessProbe: {enabled: false}
        readinessProbe: {path: /ready, failureThreshold: 5}
        extraObjects: ["{apiVersion: v1, kind: ConfigMap, metadata: {name: text}}"]
        """
        % ("a" * 64)
    )
    assert done.returncode == 0, done.stderr
    objects = Objects(done.stdout)
    name = "login-oauth2-proxy"
    objects.get("ConfigMap", "text")
    assert objects.get("Deployment", name)["spec"]["selector"]["matchLabels"] == {
        "app.kubernetes.io/name": "oauth2-proxy",
        "app.kubernetes.io/instance": "login",
    }
    assert objects.container["image"] == f"authproxy@sha256:{'a' * 64}"
    assert "securityContext" not in objects.container
    assert "livenessProbe" not in objects.container
    assert objects.container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert (
        objects.variables["OAUTH2_PROXY_REDIS_CONNECTION_URL"] == "redis://redis:6379"
    )
    assert contents(objects.get("Secret", f"{name}-redis-access")) == {
        "redis-password": "pw"
    }
    assert contents(objects.get("Secret", f"{name}-google")) == {
        "service-account.json": "{}"
    }
    budget = objects.get("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget
    spec = objects.get("Service")["spec"]
    assert [one["nodePort"] for one in spec["ports"]] == [30080, 30081]
    assert spec["ipFamilies"] == ["IPv6", "IPv4"]
    check = objects.get("Middleware", "check")["spec"]["forwardAuth"]
    assert check["addAuthCookiesToResponse"][0] == "__Host-app"


@pytest.mark.parametrize("name", VALUES)
def test_names_within_a_pod_are_unique_and_its_volumes_exist(name: str) -> None:
    spec = rendered(name).pod["spec"]
    volumes = [one["name"] for one in spec.get("volumes", [])]
    assert len(volumes) == len(set(volumes))
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        mounts = container.get("volumeMounts", [])
        paths = [one["mountPath"] for one in mounts]
        assert len(paths) == len(set(paths))
        assert {one["name"] for one in mounts} <= set(volumes)
        variables = [one["name"] for one in container.get("env", [])]
        assert len(variables) == len(set(variables))


def test_objects_match_the_schemas_of_kubernetes(tmp_path: Path) -> None:
    program, missing = find("kubeconform"), missing_module()
    if program is None or missing:
        pytest.skip(missing or "no kubeconform")
    write_schemas(tmp_path)
    text = "\n---\n".join(rendered(name).text for name in VALUES)
    location = f"{tmp_path}/{{{{.ResourceKind}}}}.json"
    arguments = [str(program), "-strict", "-summary", "-schema-location", location, "-"]
    done = validate(arguments, text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped: 0" in done.stdout
    for key, wrong in (("readinessProbe:", "readyProbe:"), ("hostnames:", "hosts:")):
        assert wrong[:-1] in validate(arguments, text.replace(key, wrong, 1)).stdout


def validate(command: list[str], text: str) -> subprocess.CompletedProcess[str]:
    """Run kubeconform over *text*."""
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=120
    )
