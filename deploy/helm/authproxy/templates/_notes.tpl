{{/* Accepted values without an effect, for NOTES.txt. */}}
{{- define "authproxy.remarks" -}}
{{- if not .Values.checkDeprecation }}
checkDeprecation has no effect: values are always checked.
{{- end }}
{{- if gt (len (index .Values "redis-ha")) 1 }}
redis-ha has no effect: this chart installs no Redis.
{{- end }}
{{- if kindIs "map" .Values.initContainers }}
initContainers.waitForRedis has no effect: authproxy starts without Redis and connects when it is available.
{{- end }}
{{- if and .Values.alphaConfig.enabled (not .Values.config.forceLegacyConfig) (or .Values.config.configFile .Values.config.existingConfig) }}
config.configFile and config.existingConfig have no effect: alphaConfig.enabled=true and config.forceLegacyConfig=false.
{{- end }}
{{- if and .Values.config.existingSecret (or .Values.config.clientID .Values.config.clientSecret .Values.config.cookieSecret) }}
config.clientID, clientSecret and cookieSecret have no effect: config.existingSecret takes precedence.
{{- end }}
{{- end -}}

{{/* What helm prints after an installation. */}}
{{- define "authproxy.notes" -}}
authproxy {{ .Chart.AppVersion }} is at {{ include "authproxy.serviceUrl" . }} within the cluster.

  kubectl --namespace {{ include "authproxy.namespace" . }} get pods --selector app.kubernetes.io/instance={{ .Release.Name }}
  kubectl --namespace {{ include "authproxy.namespace" . }} logs deployment/{{ include "authproxy.fullname" . }}

Traefik: {{ with include "authproxy.middlewares" . -}}
these middlewares check requests, in this order: {{ . }}
{{- else -}}
set traefik.middleware.enabled=true for a middleware that checks requests.
{{- end }}

ingress-nginx: annotations of the application's Ingress:

{{ include "authproxy.nginxAnnotations" (list . "") | indent 2 }}

Either way, the host of the application must route {{ .Values.authCheck.proxyPrefix }}/ to authproxy.
{{- with include "authproxy.remarks" . | trim }}

Values without effect:
{{ . | indent 2 }}
{{- end }}
{{- end -}}
