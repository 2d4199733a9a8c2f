{{/* Parts of the objects for gateways. */}}

{{/* The address of authproxy's Service within the cluster. */}}
{{- define "authproxy.serviceUrl" -}}
{{ .Values.httpScheme }}://{{ include "authproxy.fullname" . }}.{{ include "authproxy.namespace" . }}.svc.cluster.local:{{ .Values.service.portNumber }}
{{- end -}}

{{- define "authproxy.middlewareName" -}}
{{- .Values.traefik.middleware.name | default (printf "%s-forward-auth" (include "authproxy.fullname" .)) -}}
{{- end -}}

{{/* Arguments: root, name. */}}
{{- define "authproxy.middlewareMetadata" -}}
{{- $metadata := include "authproxy.metadata" (dict "root" (index . 0)) | fromYaml -}}
{{- set $metadata "name" (index . 1) | toYaml -}}
{{- end -}}

{{/* Arguments: root, endpoint, query. */}}
{{- define "authproxy.forwardAuth" -}}
{{- $root := index . 0 -}}
{{- $cookie := include "authproxy.cookieName" $root -}}
address: {{ include "authproxy.serviceUrl" $root }}{{ $root.Values.authCheck.proxyPrefix }}/{{ index . 1 }}{{ with index . 2 }}?{{ . }}{{ end }}
{{- if $root.Values.traefik.trustForwardHeader }}
trustForwardHeader: true
{{- end }}
{{- with $root.Values.authCheck.responseHeaders }}
authResponseHeaders:
  {{- toYaml . | nindent 2 }}
{{- end }}
addAuthCookiesToResponse:
  - {{ $cookie }}
  {{- range until (int $root.Values.authCheck.cookieParts) }}
  - {{ $cookie }}_{{ . }}
  {{- end }}
{{- end -}}
