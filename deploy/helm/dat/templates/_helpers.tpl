{{- define "dat.name" -}}
{{- if contains "dat" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-dat{{ end }}
{{- end }}

{{- define "dat.labels" -}}
app.kubernetes.io/name: dat
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "dat.selector" -}}
app.kubernetes.io/name: dat
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "dat.image" -}}
{{- $digest := index .root.Values.image.digests .image -}}
{{ .root.Values.image.registry }}/dat-{{ .image }}
{{- if $digest }}@{{ $digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "dat.container" -}}
image: {{ include "dat.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- with .root.Values.bundles.existingSecret }}
envFrom:
  - secretRef: { name: {{ . }} }
{{- end }}
volumeMounts:
  - { name: home, mountPath: /data }
  - { name: tmp, mountPath: /tmp }
  - { name: config, mountPath: /etc/dat/config, readOnly: true }
  {{- if .root.Values.existingSecret }}
  - { name: secrets, mountPath: /etc/dat/secrets, readOnly: true }
  {{- end }}
  {{- if .root.Values.tlsSecret }}
  - { name: tls, mountPath: /etc/dat/tls, readOnly: true }
  {{- end }}
  {{- if .logs }}
  - { name: logs, mountPath: /logs, readOnly: true }
  {{- end }}
workingDir: /etc/dat/config {{- /* where dat.toml is looked for */}}
{{- end }}

{{- define "dat.bundles" -}}
{{- .Values.bundles.url | default (empty .Values.home.url | ternary "" (printf "%s/bundles" .Values.home.url)) }}
{{- end }}

{{- define "dat.env" -}}
- { name: DAT_HOME, value: {{ .Values.home.url | default "/data" | quote }} }
- { name: DAT_DATASET, value: /etc/dat/config/card.toml }
{{- with include "dat.bundles" . }}
- { name: DAT_BUNDLES, value: {{ . | quote }} }
{{- end }}
{{- if .Values.existingSecret }}
- { name: DAT_SECRETS_DIR, value: /etc/dat/secrets }
{{- end }}
{{- range $name, $value := .Values.env }}
- { name: {{ $name }}, value: {{ $value | quote }} }
{{- end }}
{{- end }}

{{- define "dat.pod" -}}
serviceAccountName: {{ include "dat.name" .root }}
automountServiceAccountToken: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
volumes:
  - name: home
    {{- if and (include "dat.bundles" .root) (ne .component "nightly") }}
    emptyDir: { sizeLimit: {{ .root.Values.bundles.size }} } # copies, and Feast's registry
    {{- else }}
    persistentVolumeClaim: { claimName: {{ .root.Values.home.existingClaim | default (printf "%s-home" (include "dat.name" .root)) }} }
    {{- end }}
  - name: tmp
    emptyDir: {}
  - name: config
    projected:
      sources:
        - configMap: { name: {{ include "dat.name" .root }}-settings }
        {{- with .root.Values.existingCard }}
        - configMap: { name: {{ . }} }
        {{- end }}
  {{- with .root.Values.existingSecret }}
  - name: secrets
    secret: { secretName: {{ . }}, defaultMode: 0440 }
  {{- end }}
  {{- with .root.Values.tlsSecret }}
  - name: tls
    secret: { secretName: {{ . }}, defaultMode: 0440 }
  {{- end }}
  {{- if .logs }}
  - name: logs
    persistentVolumeClaim: { claimName: {{ .root.Values.logs.existingClaim }}, readOnly: true }
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "dat.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{ include "dat.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "dat.checksum" -}}
checksum/settings: {{ include (print .Template.BasePath "/settings.yaml") . | sha256sum }}
{{- end }}
