{{/* Names and labels. They follow the same rules as those of oauth2-proxy's chart, so
     that nameOverride=oauth2-proxy keeps the names of an existing release. */}}

{{- define "authproxy.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "authproxy.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "authproxy.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* A deployment's selector cannot change, so these two labels never do. */}}
{{- define "authproxy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "authproxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "authproxy.labels" -}}
app: {{ include "authproxy.name" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "authproxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: authentication-proxy
app.kubernetes.io/part-of: {{ include "authproxy.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.customLabels }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{/* Metadata of an object. Arguments: root, and optionally suffix (of the name),
     namespace, labels and annotations, which may contain templates. */}}
{{- define "authproxy.metadata" -}}
{{- $root := .root -}}
name: {{ include "authproxy.fullname" $root }}{{ .suffix }}
namespace: {{ .namespace | default (include "authproxy.namespace" $root) }}
labels:
  {{- include "authproxy.labels" $root | nindent 2 }}
  {{- with .labels }}
  {{- tpl (toYaml .) $root | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- tpl (toYaml .) $root | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "authproxy.secretName" -}}
{{- tpl (.Values.config.existingSecret | default (include "authproxy.fullname" .)) . -}}
{{- end -}}

{{- define "authproxy.serviceAccountName" -}}
{{- $default := ternary (include "authproxy.fullname" .) "default" .Values.serviceAccount.enabled -}}
{{- tpl (.Values.serviceAccount.name | default $default) . -}}
{{- end -}}

{{- define "authproxy.image" -}}
{{- $registry := tpl (.Values.image.registry | default .Values.global.imageRegistry | default "") . -}}
{{- $tag := tpl (.Values.image.tag | default .Chart.AppVersion) . -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ $tag }}{{ end -}}
{{- end -}}

{{/* Templates that values files of oauth2-proxy's chart may include. */}}
{{- define "oauth2-proxy.name" -}}{{ include "authproxy.name" . }}{{- end -}}
{{- define "oauth2-proxy.fullname" -}}{{ include "authproxy.fullname" . }}{{- end -}}
{{- define "oauth2-proxy.namespace" -}}{{ include "authproxy.namespace" . }}{{- end -}}
{{- define "oauth2-proxy.labels" }}
{{ include "authproxy.labels" . }}
{{- end -}}
{{- define "oauth2-proxy.selectorLabels" }}
{{ include "authproxy.selectorLabels" . }}
{{- end -}}
{{- define "oauth2-proxy.secretName" -}}{{ include "authproxy.secretName" . }}{{- end -}}
{{- define "oauth2-proxy.serviceAccountName" -}}{{ include "authproxy.serviceAccountName" . }}{{- end -}}
