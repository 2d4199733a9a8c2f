{{/* Credentials and environment variables. */}}

{{/* The environment variable of a key of the Secret, such as client-id. */}}
{{- define "authproxy.variable" -}}
OAUTH2_PROXY_{{ . | upper | replace "-" "_" }}
{{- end -}}

{{/* The value of config.clientID, .clientSecret or .cookieSecret by the Secret's key. */}}
{{- define "authproxy.credential" -}}
{{- $names := dict "client-id" "clientID" "client-secret" "clientSecret" "cookie-secret" "cookieSecret" -}}
{{- tpl (get .root.Values.config (get $names .key) | default "" | toString) .root -}}
{{- end -}}

{{/* Keys of the Secret that become environment variables, as a list in YAML. extraEnv
     takes precedence. The alpha configuration names its clients itself. */}}
{{- define "authproxy.secretKeys" -}}
{{- $keys := list -}}
{{- $given := list -}}
{{- range .Values.extraEnv -}}
{{- $given = append $given .name -}}
{{- end -}}
{{- if .Values.proxyVarsAsSecrets -}}
{{- range $key := .Values.config.requiredSecretKeys -}}
{{- $value := include "authproxy.credential" (dict "root" $ "key" $key) -}}
{{- $optional := and $.Values.alphaConfig.enabled (ne $key "cookie-secret") (not $.Values.config.existingSecret) -}}
{{- if and (not (has (include "authproxy.variable" $key) $given)) (or $value (not $optional)) -}}
{{- $keys = append $keys $key -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $keys }}
{{- end -}}

{{/* List items of the container's env, in YAML. */}}
{{- define "authproxy.env" -}}
{{- range include "authproxy.secretKeys" . | fromYamlArray }}
{{ include "authproxy.secretVariable" (list (include "authproxy.variable" .) (include "authproxy.secretName" $) .) }}
{{- end }}
{{- if eq .Values.sessionStorage.type "redis" }}
- name: OAUTH2_PROXY_SESSION_STORE_TYPE
  value: redis
{{- include "authproxy.redisEnv" . }}
{{- end }}
{{- with .Values.extraEnv }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{/* Arguments: name of the variable, name of the Secret, key. */}}
{{- define "authproxy.secretVariable" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "authproxy.redisEnv" -}}
{{- $own := printf "%s-redis-access" (include "authproxy.fullname" .) -}}
{{- with .Values.sessionStorage.redis }}
{{- if or .existingSecret .password }}
{{ include "authproxy.secretVariable" (list "OAUTH2_PROXY_REDIS_PASSWORD" (.existingSecret | default $own) .passwordKey) }}
{{- end }}
{{- if eq .clientType "standalone" }}
- name: OAUTH2_PROXY_REDIS_CONNECTION_URL
  value: {{ tpl .standalone.connectionUrl $ | quote }}
{{- else if eq .clientType "cluster" }}
- name: OAUTH2_PROXY_REDIS_USE_CLUSTER
  value: "true"
- name: OAUTH2_PROXY_REDIS_CLUSTER_CONNECTION_URLS
  value: {{ include "authproxy.urls" .cluster.connectionUrls | quote }}
{{- else }}
- name: OAUTH2_PROXY_REDIS_USE_SENTINEL
  value: "true"
- name: OAUTH2_PROXY_REDIS_SENTINEL_MASTER_NAME
  value: {{ .sentinel.masterName | quote }}
- name: OAUTH2_PROXY_REDIS_SENTINEL_CONNECTION_URLS
  value: {{ include "authproxy.urls" .sentinel.connectionUrls | quote }}
{{- $existing := .sentinel.existingSecret | default .existingSecret }}
{{- if or $existing .sentinel.password }}
{{ include "authproxy.secretVariable" (list "OAUTH2_PROXY_REDIS_SENTINEL_PASSWORD" ($existing | default $own) .sentinel.passwordKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "authproxy.urls" -}}
{{- if kindIs "slice" . }}{{ join "," . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}
