{{/* The configuration file: what the other values make of it, then `settings` as they are. */}}
{{- define "quotad.config" -}}
{{ include "quotad.made" . }}
{{- range $key, $value := .Values.settings }}
{{ $key }}: {{ toJson $value }}
{{- end }}
{{- end -}}

{{/* What of it holds until a pod is started again; the rest is read while it runs. */}}
{{- define "quotad.fixed" -}}
{{ include "quotad.made" . }}
{{- $live := splitList "\n" (.Files.Get "files/live-settings.txt") }}
{{- range $key, $value := .Values.settings }}
{{- if not (has $key $live) }}
{{ $key }}: {{ toJson $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "quotad.made" -}}
listen: {{ .Values.listen | quote }}
http_listen: {{ .Values.listen | quote }}
admin_listen: {{ ternary .Values.listen "127.0.0.1" .Values.control.open | quote }}
{{- if .Values.store.ephemeral }}
ephemeral: true
{{- else }}
data: /var/lib/quotad
{{- end }}
{{- if include "quotad.catalogs" . }}
catalogs: [/etc/quotad/catalogs]
{{- end }}
{{- if include "quotad.domains" . }}
envoy_domains: /etc/quotad/envoy/domains.yaml
{{- end }}
{{- with .Values.tokens }}
{{- if .secret }}
tokens: {{ printf "/etc/quotad/tokens/%s" .key | quote }}
{{- end }}
{{- end }}
{{- include "quotad.tls" (list "" "/etc/quotad/tls" .Values.tls) }}
{{- include "quotad.tls" (list "admin_" "/etc/quotad/control-tls" .Values.control) }}
{{- end -}}

{{/* One port's TLS: prefix of the settings, directory, values. */}}
{{- define "quotad.tls" -}}
{{- $prefix := index . 0 }}{{ $directory := index . 1 }}{{ $tls := index . 2 -}}
{{- if $tls.secret }}
{{ $prefix }}tls_cert: {{ $directory }}/tls.crt
{{ $prefix }}tls_key: {{ $directory }}/tls.key
{{- with $tls.clientCaKey }}
{{ $prefix }}tls_client_ca: {{ printf "%s/%s" $directory . | quote }}
{{- end }}
{{- with $tls.clientNames }}
{{ $prefix }}tls_client_names: {{ toJson . }}
{{- end }}
{{- end }}
{{- end -}}
