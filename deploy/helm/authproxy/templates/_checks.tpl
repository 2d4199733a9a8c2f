{{/* Refuse values that could not work, or that would silently have no effect. */}}

{{- define "authproxy.check" -}}
{{- $problems := list -}}
{{- range $name := list "Unknown" "Credentials" "Image" "Config" "Sessions" "Exposure" -}}
{{- range splitList "\n" (include (printf "authproxy.check%s" $name) $) -}}
{{- with trim . -}}
{{- $problems = append $problems . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "\n\n  - %s\n" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}

{{/* Top-level values of Bitnami's chart, with the value that does the same here. */}}
{{- define "authproxy.bitnami" -}}
configuration: config (clientID, clientSecret, cookieSecret and existingSecret keep their names; content is config.configFile; oidcIssuerUrl, redirectUrl and whiteList are extraArgs oidc-issuer-url, redirect-url and whitelist-domain)
containerSecurityContext: securityContext
externalRedis: sessionStorage.redis
redis: sessionStorage.redis, for a Redis that is installed by itself
pdb: podDisruptionBudget
extraDeploy: extraObjects
extraEnvVars: extraEnv
extraEnvVarsCM: envFrom with configMapRef
extraEnvVarsSecret: envFrom with secretRef
sidecars: extraContainers
commonLabels: customLabels
commonAnnotations: annotations of each object
updateStrategy: strategy
lifecycleHooks: lifecycle
args: extraArgs
command: image.command
automountServiceAccountToken: serviceAccount.automountServiceAccountToken
{{- end -}}

{{/* The top-level keys of values.yaml. */}}
{{- define "authproxy.known" -}}
affinity alphaConfig applications authCheck authenticatedEmailsFile autoscaling checkDeprecation config
containerPort customLabels customTemplates deploymentAnnotations deploymentLabels
enableServiceLinks envFrom extraArgs extraContainers extraEnv extraInitContainers
extraObjects extraVolumeMounts extraVolumes fullnameOverride gatewayApi global
hostAliases htpasswdFile httpScheme image imagePullSecrets ingress initContainers
kubeVersion lifecycle livenessProbe metrics nameOverride namespaceOverride
networkPolicy nodeSelector podAnnotations podDisruptionBudget podLabels
podSecurityContext priorityClassName proxyVarsAsSecrets readinessProbe redis-ha
replicaCount resizePolicy resources revisionHistoryLimit securityContext service
serviceAccount sessionStorage strategy terminationGracePeriodSeconds tolerations
topologySpreadConstraints traefik
{{- end -}}

{{/* Unknown values are refused, unless a template in the values uses them. */}}
{{- define "authproxy.checkUnknown" -}}
{{- $known := regexSplit `\s+` (include "authproxy.known" .) -1 -}}
{{- $bitnami := include "authproxy.bitnami" . | fromYaml -}}
{{- $values := toJson .Values -}}
{{- range $key := keys .Values | sortAlpha -}}
{{- if hasKey $bitnami $key }}
{{ $key }}: a value of Bitnami's chart; use {{ get $bitnami $key }}
{{- else if not (or (has $key $known) (hasPrefix "x-" $key) (regexMatch (printf `Values\.%s\b` $key) $values)) }}
{{ $key }}: unknown; neither the chart nor a template in the values uses it
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.checkCredentials" -}}
{{- if and .Values.proxyVarsAsSecrets (not .Values.config.existingSecret) -}}
{{- range $key := include "authproxy.secretKeys" . | fromYamlArray -}}
{{- $name := dict "client-id" "clientID" "client-secret" "clientSecret" "cookie-secret" "cookieSecret" | dig $key "" -}}
{{- $value := include "authproxy.credential" (dict "root" $ "key" $key) -}}
{{- if not $value }}
config.{{ $name }}: missing; set it, or config.existingSecret, or remove {{ $key }} from config.requiredSecretKeys
{{- else if regexMatch "^X+$" $value }}
config.{{ $name }}: a placeholder that everybody knows; set another value
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.checkImage" -}}
{{- if regexMatch "(^|/)(bitnami|bitnamilegacy|oauth2-proxy)/oauth2-proxy$" .Values.image.repository }}
image.repository: an image of oauth2-proxy; remove it, or name an image of authproxy
{{- end -}}
{{- if regexMatch "^v?[4-7]\\.[0-9]+" (toString .Values.image.tag) }}
image.tag: a version of oauth2-proxy; remove it, or name a version of authproxy
{{- end -}}
{{- if .Values.kubeVersion -}}
{{- if not (semverCompare ">=1.25.0-0" (toString .Values.kubeVersion)) }}
kubeVersion: the chart needs Kubernetes 1.25
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The schema cannot check secrets and flags: its errors quote them. */}}
{{- define "authproxy.checkConfig" -}}
{{- if kindIs "slice" .Values.extraArgs -}}
{{- range $index, $flag := .Values.extraArgs -}}
{{- if not (hasPrefix "-" $flag) }}
extraArgs[{{ $index }}]: expected a flag, such as --provider=oidc
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.alphaConfig -}}
{{- $generated := or .serverConfigData .metricsConfigData .configData .configFile -}}
{{- if and .enabled .existingConfig .existingSecret }}
alphaConfig: existingConfig and existingSecret exclude each other
{{- end -}}
{{- if and .enabled (or .existingConfig .existingSecret) $generated }}
alphaConfig: existingConfig and existingSecret exclude serverConfigData, metricsConfigData, configData and configFile
{{- end -}}
{{- end -}}
{{- with .Values.authenticatedEmailsFile -}}
{{- if and .enabled (not .template) (not .restricted_access) }}
authenticatedEmailsFile: set restricted_access, or the name of an existing object as template
{{- end -}}
{{- if and .enabled (regexMatch `(^|[,\s])\*([,\s]|$)` (include "authproxy.emailDomains" $)) }}
authenticatedEmailsFile: has no effect with * in the email domains, which allows any email; set config.emailDomains (in a configFile email_domains) to [], or to the domains that are allowed as well
{{- end -}}
{{- end -}}
{{- with .Values.htpasswdFile -}}
{{- if and .enabled (not .existingSecret) (not .entries) }}
htpasswdFile: set entries or existingSecret
{{- end -}}
{{- range $index, $entry := .entries -}}
{{- if not (regexMatch "^[^:]+:." $entry) }}
htpasswdFile.entries[{{ $index }}]: expected NAME:HASH
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.config.google -}}
{{- if and (or .serviceAccountJson .existingSecret .useApplicationDefaultCredentials .targetPrincipal) (not .adminEmail) }}
config.google: has no effect without adminEmail
{{- end -}}
{{- if and .adminEmail (not (or .serviceAccountJson .existingSecret .useApplicationDefaultCredentials)) }}
config.google: set serviceAccountJson, existingSecret or useApplicationDefaultCredentials
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.checkSessions" -}}
{{- if index .Values "redis-ha" "enabled" }}
redis-ha.enabled: this chart installs no Redis; install it by itself, and name it in sessionStorage.redis
{{- end -}}
{{- with and (eq .Values.sessionStorage.type "redis") .Values.sessionStorage.redis -}}
{{- if eq .clientType "standalone" -}}
{{- if not .standalone.connectionUrl }}
sessionStorage.redis.standalone.connectionUrl: missing
{{- end -}}
{{- else if eq .clientType "cluster" -}}
{{- if not .cluster.connectionUrls }}
sessionStorage.redis.cluster.connectionUrls: missing
{{- end -}}
{{- else -}}
{{- if not (and .sentinel.masterName .sentinel.connectionUrls) }}
sessionStorage.redis.sentinel: masterName and connectionUrls are required
{{- end -}}
{{- if and .sentinel.password (ne .sentinel.password .password) (not .existingSecret) (not .sentinel.existingSecret) (eq .passwordKey .sentinel.passwordKey) }}
sessionStorage.redis.sentinel.passwordKey: two passwords need two keys
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.checkExposure" -}}
{{- if .Values.service.port }}
service.port: its name is service.portNumber
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
ingress.hosts: missing
{{- end -}}
{{- range .Values.ingress.extraPaths -}}
{{- if or .backend.serviceName .backend.servicePort }}
ingress.extraPaths: use the form of networking.k8s.io/v1, backend.service.name and backend.service.port
{{- end -}}
{{- end -}}
{{- if and .Values.gatewayApi.enabled (not .Values.gatewayApi.gatewayRef.name) }}
gatewayApi.gatewayRef.name: missing; a route without a gateway serves nothing
{{- end -}}
{{- range .Values.applications -}}
{{- if and .query (ne .gateway "ingress-nginx") }}
applications: {{ .name }}: query is for ingress-nginx; set traefik.middleware.query
{{- end -}}
{{- if eq .gateway "gateway-api" -}}
{{- if .className }}
applications: {{ .name }}: className is for Ingress objects; set gatewayApi.gatewayRef
{{- end -}}
{{- if .tls }}
applications: {{ .name }}: tls is for Ingress objects; set the certificate at the Gateway
{{- end -}}
{{- else if .filters }}
applications: {{ .name }}: filters is for gateway-api; remove it
{{- end -}}
{{- if eq .gateway "traefik" -}}
{{- if not (include "authproxy.middlewares" $) }}
applications: {{ .name }}: enable traefik.middleware, without which nothing is checked
{{- end -}}
{{- else if and (eq .gateway "gateway-api") (or (not $.Values.gatewayApi.gatewayRef.name) (not (or .filters $.Values.traefik.middleware.enabled))) }}
applications: {{ .name }}: set gatewayApi.gatewayRef, and filters or traefik.middleware, without which nothing is checked
{{- end -}}
{{- end -}}
{{- if and .Values.networkPolicy.create (not .Values.networkPolicy.ingress) (not .Values.networkPolicy.egress) }}
networkPolicy: without rules it would block all requests; list the peers in ingress or egress
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if not (or (kindIs "invalid" .minAvailable) (kindIs "invalid" .maxUnavailable)) }}
podDisruptionBudget: minAvailable and maxUnavailable exclude each other
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) }}
metrics.serviceMonitor: has no effect without metrics.enabled=true
{{- else if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.port) }}
metrics.serviceMonitor: has no effect without metrics.port, the port of the Service
{{- end -}}
{{- end -}}
