{{/* Names and labels that several objects share. */}}

{{/* 50: a StatefulSet adds up to 11 to its name in a label, which holds 63. */}}
{{- define "quotad.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride }}
{{- else if contains $chart .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name $chart | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{/* Never the chart's version: a selector cannot be changed. */}}
{{- define "quotad.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "quotad.origin" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "quotad.labels" -}}
{{ include "quotad.selector" . }}
{{ include "quotad.origin" . }}
{{- end -}}

{{- define "quotad.image" -}}
{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end -}}

{{/* The Service that callers of the data port use. One that spreads calls over sharded pods would be wrong. */}}
{{- define "quotad.service" -}}
{{ include "quotad.name" . }}{{ if .Values.sharded }}-headless{{ end }}
{{- end -}}

{{- define "quotad.catalogs" -}}
{{- if .Values.catalogs.configMap }}{{ .Values.catalogs.configMap }}
{{- else if .Values.catalogs.files }}{{ include "quotad.name" . }}-catalogs{{ end }}
{{- end -}}

{{- define "quotad.domains" -}}
{{- if .Values.envoy.configMap }}{{ .Values.envoy.configMap }}
{{- else if .Values.envoy.domains }}{{ include "quotad.name" . }}-envoy{{ end }}
{{- end -}}

{{- define "quotad.appProtocol" -}}
{{ default (ternary "tls" "grpc" (ne .Values.tls.secret "")) .Values.service.appProtocol }}
{{- end -}}
