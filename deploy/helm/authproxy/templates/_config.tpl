{{/* Configuration: files, flags and environment variables. */}}

{{/* Source of oauth2_proxy.cfg: existing (ConfigMap), file (config.configFile),
     minimal (email domains only), generated, or none. */}}
{{- define "authproxy.configSource" -}}
{{- if and .Values.alphaConfig.enabled (not .Values.config.forceLegacyConfig) -}}
minimal
{{- else if .Values.config.existingConfig -}}
existing
{{- else if .Values.config.configFile -}}
file
{{- else if .Values.alphaConfig.enabled -}}
minimal
{{- else if .Values.config.forceLegacyConfig -}}
generated
{{- else -}}
none
{{- end -}}
{{- end -}}

{{- define "authproxy.config" -}}
{{- $source := include "authproxy.configSource" . -}}
{{- if eq $source "file" -}}
{{ tpl .Values.config.configFile . }}
{{- else -}}
email_domains = {{ toJson .Values.config.emailDomains }}
{{- if eq $source "generated" }}
upstreams = {{ toJson .Values.config.upstreams }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The email domains in effect, as far as the values tell them, separated by commas.
     Flags take precedence over variables, and variables over the file. */}}
{{- define "authproxy.emailDomains" -}}
{{- $domains := list -}}
{{- range include "authproxy.extraArgs" . | fromYamlArray -}}
{{- with regexFind `^--?email-domain=.*` . -}}
{{- $domains = append $domains (regexReplaceAll `^[^=]*=` . "") -}}
{{- end -}}
{{- end -}}
{{- if not $domains -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "OAUTH2_PROXY_EMAIL_DOMAINS" -}}
{{- $domains = list (tpl (.value | default "in valueFrom" | toString) $) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not $domains) (not (has (include "authproxy.configSource" .) (list "existing" "none"))) -}}
{{- $line := regexFind `(?m)^\s*email_domains\s*=\s*(\[[^\]]*\]|"[^"]*"|'[^']*')` (include "authproxy.config" .) -}}
{{- $domains = list (regexReplaceAll `^[^=]*=|[\["'\]]` $line "") -}}
{{- end -}}
{{- join "," $domains -}}
{{- end -}}

{{/* Source of oauth2_proxy.yml: none, configMap, secret, or generated. */}}
{{- define "authproxy.alphaSource" -}}
{{- if not .Values.alphaConfig.enabled -}}
none
{{- else if .Values.alphaConfig.existingConfig -}}
configMap
{{- else if .Values.alphaConfig.existingSecret -}}
secret
{{- else -}}
generated
{{- end -}}
{{- end -}}

{{- define "authproxy.alphaName" -}}
{{- $own := printf "%s-alpha" (include "authproxy.fullname" .) -}}
{{- tpl (.Values.alphaConfig.existingConfig | default .Values.alphaConfig.existingSecret | default $own) . -}}
{{- end -}}

{{- define "authproxy.alpha" -}}
{{- $config := deepCopy .Values.alphaConfig.configData -}}
{{- $http := include "authproxy.httpAddress" . -}}
{{- $_ := include "authproxy.addServer" (list $config "server" .Values.alphaConfig.serverConfigData $http) -}}
{{- if .Values.metrics.enabled -}}
{{- $_ := include "authproxy.addServer" (list $config "metricsServer" .Values.alphaConfig.metricsConfigData "0.0.0.0:44180") -}}
{{- end -}}
{{ toYaml $config }}
{{- with .Values.alphaConfig.configFile }}
{{ tpl . $ }}
{{- end }}
{{- end -}}

{{/* Add a server to the alpha configuration, unless it has one. Arguments: the
     configuration, the key, the server's values, its default address. */}}
{{- define "authproxy.addServer" -}}
{{- $server := deepCopy (index . 2) -}}
{{- if not (or (hasKey $server "BindAddress") (hasKey $server "bindAddress")) -}}
{{- $_ := set $server "BindAddress" (index . 3) -}}
{{- end -}}
{{- if not (hasKey (index . 0) (index . 1)) -}}
{{- $_ := set (index . 0) (index . 1) $server -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.httpAddress" -}}
{{- $own := and .Values.containerPort (eq .Values.httpScheme "http") -}}
0.0.0.0:{{ ternary .Values.containerPort 4180 (not (not $own)) }}
{{- end -}}

{{- define "authproxy.httpsAddress" -}}
{{- $own := and .Values.containerPort (eq .Values.httpScheme "https") -}}
0.0.0.0:{{ ternary .Values.containerPort 4443 (not (not $own)) }}
{{- end -}}

{{/* Whether flags or the configuration file name a certificate. */}}
{{- define "authproxy.hasCertificate" -}}
{{- $text := print (toJson .Values.extraArgs) .Values.config.configFile -}}
{{- if or (eq .Values.httpScheme "https") (regexMatch "tls[-_]cert[-_]file" $text) -}}
true
{{- end -}}
{{- end -}}

{{/* A list of flags, in YAML. Later flags take precedence. */}}
{{- define "authproxy.args" -}}
{{- $args := list -}}
{{- if .Values.alphaConfig.enabled -}}
{{- $args = append $args "--alpha-config=/etc/oauth2_proxy/oauth2_proxy.yml" -}}
{{- else -}}
{{- $args = append $args (printf "--http-address=%s" (include "authproxy.httpAddress" .)) -}}
{{- if include "authproxy.hasCertificate" . -}}
{{- $args = append $args (printf "--https-address=%s" (include "authproxy.httpsAddress" .)) -}}
{{- end -}}
{{- if .Values.metrics.enabled -}}
{{- $args = append $args "--metrics-address=0.0.0.0:44180" -}}
{{- end -}}
{{- end -}}
{{- if ne (include "authproxy.configSource" .) "none" -}}
{{- $args = append $args "--config=/etc/oauth2_proxy/oauth2_proxy.cfg" -}}
{{- end -}}
{{- with .Values.config.cookieName -}}
{{- $args = append $args (printf "--cookie-name=%s" (tpl . $)) -}}
{{- end -}}
{{- if .Values.authenticatedEmailsFile.enabled -}}
{{- $args = append $args (printf "--authenticated-emails-file=/etc/oauth2-proxy/%s" (include "authproxy.emailsName" .)) -}}
{{- end -}}
{{- if .Values.htpasswdFile.enabled -}}
{{- $args = append $args "--htpasswd-file=/etc/oauth2_proxy/htpasswd/users.txt" -}}
{{- end -}}
{{- if include "authproxy.templatesName" . -}}
{{- $args = append $args "--custom-templates-dir=/etc/authproxy/templates" -}}
{{- end -}}
{{- $args = concat $args (include "authproxy.googleArgs" . | fromYamlArray) -}}
{{- $args = concat $args (include "authproxy.extraArgs" . | fromYamlArray) -}}
{{ toYaml $args }}
{{- end -}}

{{/* extraArgs as a list. A list is passed as it is; the values of a map may contain
     templates, a list in a map repeats the flag. */}}
{{- define "authproxy.extraArgs" -}}
{{- $args := list -}}
{{- if kindIs "slice" .Values.extraArgs -}}
{{- $args = .Values.extraArgs -}}
{{- else -}}
{{- range $key, $value := .Values.extraArgs -}}
{{- if kindIs "invalid" $value -}}
{{- $args = append $args (printf "--%s" $key) -}}
{{- else -}}
{{- range $one := ternary $value (list $value) (kindIs "slice" $value) -}}
{{- $args = append $args (printf "--%s=%s" $key (include "authproxy.text" (dict "value" $one "root" $))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{ toYaml $args }}
{{- end -}}

{{/* A value as text: numbers of YAML are floats, which print as 1e+06. */}}
{{- define "authproxy.text" -}}
{{- if and (kindIs "float64" .value) (eq .value (floor .value)) -}}
{{- printf "%d" (int64 .value) -}}
{{- else -}}
{{- tpl (toString .value) .root -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.googleArgs" -}}
{{- $args := list -}}
{{- with .Values.config.google -}}
{{- if and .adminEmail (or .serviceAccountJson .existingSecret .useApplicationDefaultCredentials) -}}
{{- $args = append $args (printf "--google-admin-email=%s" .adminEmail) -}}
{{- if .useApplicationDefaultCredentials -}}
{{- $args = append $args "--google-use-application-default-credentials=true" -}}
{{- else -}}
{{- $args = append $args "--google-service-account-json=/google/service-account.json" -}}
{{- end -}}
{{- with .targetPrincipal -}}
{{- $args = append $args (printf "--google-target-principal=%s" .) -}}
{{- end -}}
{{- end -}}
{{- range .groups -}}
{{- $args = append $args (printf "--google-group=%s" .) -}}
{{- end -}}
{{- end -}}
{{ toYaml $args }}
{{- end -}}

{{/* Name of the Secret with Google's service account; empty without one. */}}
{{- define "authproxy.googleSecretName" -}}
{{- with .Values.config.google -}}
{{- if and .adminEmail (not .useApplicationDefaultCredentials) -}}
{{- if .existingSecret -}}
{{ tpl .existingSecret $ }}
{{- else if .serviceAccountJson -}}
{{ include "authproxy.fullname" $ }}-google
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "authproxy.emailsName" -}}
{{- .Values.authenticatedEmailsFile.template | default (printf "%s-accesslist" (include "authproxy.fullname" .)) -}}
{{- end -}}

{{- define "authproxy.htpasswdName" -}}
{{- .Values.htpasswdFile.existingSecret | default (printf "%s-htpasswd-file" (include "authproxy.fullname" .)) -}}
{{- end -}}

{{/* Name of the ConfigMap with page templates; empty without one. */}}
{{- define "authproxy.templatesName" -}}
{{- if .Values.customTemplates.existingConfigMap -}}
{{ tpl .Values.customTemplates.existingConfigMap . }}
{{- else if .Values.customTemplates.files -}}
{{ include "authproxy.fullname" . }}-templates
{{- end -}}
{{- end -}}

{{/* The name of the session cookie, as far as the values tell it. */}}
{{- define "authproxy.cookieName" -}}
{{- $name := "_oauth2_proxy" -}}
{{- with regexFind `(?m)^\s*cookie_name\s*=\s*["'][^"']+` .Values.config.configFile -}}
{{- $name = regexReplaceAll `^.*["']` . "" -}}
{{- end -}}
{{- with .Values.config.cookieName -}}
{{- $name = tpl . $ -}}
{{- end -}}
{{- range include "authproxy.extraArgs" . | fromYamlArray -}}
{{- if hasPrefix "--cookie-name=" . -}}
{{- $name = trimPrefix "--cookie-name=" . -}}
{{- end -}}
{{- end -}}
{{- $name -}}
{{- end -}}
