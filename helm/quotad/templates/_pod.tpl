{{/* What the Pod Security Standard "restricted" asks of a pod and of its containers. */}}

{{- define "quotad.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.userId }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "quotad.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The kubelet's gRPC probes speak no TLS; where the data port does, the HTTP port answers for it. */}}
{{- define "quotad.readyProbe" -}}
{{- if .Values.tls.secret -}}
httpGet: {path: /readyz, port: http}
{{- else -}}
grpc: {port: 50051}
{{- end -}}
{{- end -}}

{{- define "quotad.aliveProbe" -}}
{{- if .Values.tls.secret -}}
httpGet: {path: /healthz, port: http}
{{- else -}}
grpc: {port: 50051}
{{- end -}}
{{- end -}}

{{/* Directories, never single files: Kubernetes does not bring a file of its own up to date. */}}
{{- define "quotad.mounts" -}}
- {name: config, mountPath: /etc/quotad/config, readOnly: true}
{{- if include "quotad.catalogs" . }}
- {name: catalogs, mountPath: /etc/quotad/catalogs, readOnly: true}
{{- end }}
{{- if include "quotad.domains" . }}
- {name: envoy, mountPath: /etc/quotad/envoy, readOnly: true}
{{- end }}
{{- if .Values.tokens.secret }}
- {name: tokens, mountPath: /etc/quotad/tokens, readOnly: true}
{{- end }}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /etc/quotad/tls, readOnly: true}
{{- end }}
{{- if .Values.control.secret }}
- {name: control-tls, mountPath: /etc/quotad/control-tls, readOnly: true}
{{- end }}
- {name: store, mountPath: /var/lib/quotad}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "quotad.volumes" -}}
- name: config
  configMap:
    name: {{ include "quotad.name" . }}
{{- with include "quotad.catalogs" . }}
- name: catalogs
  configMap:
    name: {{ . }}
{{- end }}
{{- with include "quotad.domains" . }}
- name: envoy
  configMap:
    name: {{ . }}
{{- end }}
{{- with .Values.tokens.secret }}
- name: tokens
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440, in which YAML 1.1 and 1.2 see different numbers
{{- end }}
{{- with .Values.tls.secret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440, in which YAML 1.1 and 1.2 see different numbers
{{- end }}
{{- with .Values.control.secret }}
- name: control-tls
  secret:
    secretName: {{ . }}
    defaultMode: 288 # 0440, in which YAML 1.1 and 1.2 see different numbers
{{- end }}
{{- if .Values.store.ephemeral }}
- name: store
  emptyDir: {}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
