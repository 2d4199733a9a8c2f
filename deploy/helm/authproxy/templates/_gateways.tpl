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
trustForwardHeader: {{ $root.Values.traefik.trustForwardHeader }}
{{- with $root.Values.traefik.maxResponseBodySize }}
maxResponseBodySize: {{ int64 . }}
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

{{/* Annotations of the Ingress of an application. Arguments: root, application. */}}
{{- define "authproxy.applicationAnnotations" -}}
{{- $root := index . 0 -}}
{{- if eq (index . 1).gateway "traefik" -}}
traefik.ingress.kubernetes.io/router.middlewares: {{ include "authproxy.middlewares" $root }}
{{- else -}}
{{ include "authproxy.nginxAnnotations" (list $root (index . 1).query) }}
{{- end -}}
{{- end -}}

{{/* Arguments: root, query of the auth check. */}}
{{- define "authproxy.nginxAnnotations" -}}
{{- $root := index . 0 -}}
nginx.ingress.kubernetes.io/auth-url: {{ include "authproxy.serviceUrl" $root }}{{ $root.Values.authCheck.proxyPrefix }}/auth{{ with index . 1 }}?{{ . }}{{ end }}
nginx.ingress.kubernetes.io/auth-signin: https://$host{{ $root.Values.authCheck.proxyPrefix }}/start?rd=$escaped_request_uri
nginx.ingress.kubernetes.io/auth-response-headers: {{ join ", " $root.Values.authCheck.responseHeaders }}
{{- end -}}

{{/* The Middlewares of the chart, as an Ingress names them; empty without any. */}}
{{- define "authproxy.middlewares" -}}
{{- $namespace := include "authproxy.namespace" . -}}
{{- if .Values.traefik.middleware.enabled -}}
{{ $namespace }}-{{ include "authproxy.middlewareName" . }}@kubernetescrd
{{- else if .Values.traefik.signInMiddlewares.enabled -}}
{{ $namespace }}-{{ .Values.traefik.signInMiddlewares.errorsName }}@kubernetescrd,{{ $namespace }}-{{ .Values.traefik.signInMiddlewares.forwardAuthName }}@kubernetescrd
{{- end -}}
{{- end -}}

{{/* Filters of the route of an application. Arguments: root, application. */}}
{{- define "authproxy.applicationFilters" -}}
{{- if (index . 1).filters -}}
{{ toYaml (index . 1).filters }}
{{- else -}}
- type: ExtensionRef
  extensionRef: {group: traefik.io, kind: Middleware, name: {{ include "authproxy.middlewareName" (index . 0) }}}
{{- end -}}
{{- end -}}
