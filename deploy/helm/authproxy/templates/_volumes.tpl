{{/* Volumes of the pod and mounts of the container. */}}

{{/* Directories instead of single files (subPath), so that authproxy reloads a ConfigMap
     or a Secret that changes. */}}
{{- define "authproxy.configSources" -}}
{{- $source := include "authproxy.configSource" . -}}
{{- $alpha := include "authproxy.alphaSource" . -}}
{{- if ne $source "none" }}
- configMap:
    name: {{ ternary (tpl (.Values.config.existingConfig | default "") .) (include "authproxy.fullname" .) (eq $source "existing") }}
    items: [{key: oauth2_proxy.cfg, path: oauth2_proxy.cfg}]
{{- end }}
{{- if ne $alpha "none" }}
- {{ ternary "configMap" "secret" (eq $alpha "configMap") }}:
    name: {{ include "authproxy.alphaName" . }}
    items: [{key: oauth2_proxy.yml, path: oauth2_proxy.yml}]
{{- end }}
{{- if .Values.htpasswdFile.enabled }}
- secret:
    name: {{ include "authproxy.htpasswdName" . }}
    items: [{key: users.txt, path: htpasswd/users.txt}]
{{- end }}
{{- end -}}

{{- define "authproxy.volumes" -}}
{{- with include "authproxy.configSources" . }}
- name: authproxy-config
  projected:
    sources:
      {{- trim . | nindent 6 }}
{{- end }}
{{- with .Values.authenticatedEmailsFile }}
{{- if .enabled }}
{{- $name := include "authproxy.emailsName" $ }}
- name: authproxy-emails
  {{- if eq .persistence "secret" }}
  secret:
    secretName: {{ $name }}
  {{- else }}
  configMap:
    name: {{ $name }}
  {{- end }}
    items:
      - key: {{ .restrictedUserAccessKey | default "restricted_user_access" }}
        path: {{ $name }}
{{- end }}
{{- end }}
{{- with include "authproxy.googleSecretName" . }}
- name: authproxy-google
  secret:
    secretName: {{ . }}
{{- end }}
{{- with include "authproxy.templatesName" . }}
- name: authproxy-templates
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}

{{- define "authproxy.volumeMounts" -}}
{{- if include "authproxy.configSources" . }}
- name: authproxy-config
  mountPath: /etc/oauth2_proxy
  readOnly: true
{{- end }}
{{- if .Values.authenticatedEmailsFile.enabled }}
- name: authproxy-emails
  mountPath: /etc/oauth2-proxy
  readOnly: true
{{- end }}
{{- if include "authproxy.googleSecretName" . }}
- name: authproxy-google
  mountPath: /google
  readOnly: true
{{- end }}
{{- if include "authproxy.templatesName" . }}
- name: authproxy-templates
  mountPath: /etc/authproxy/templates
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end -}}
