{{/*
What several templates need, written once. Values that come from a template are JSON: a template
reads them with fromJson or fromJsonArray. Every value of the user is printed by toJson or toYaml,
so that none can end its own string.
*/}}

{{- define "alb-oidc.metadata" -}}
namespace: {{ .Values.gateway.namespace | toJson }}
labels: {{- include "alb-oidc.labels" . | nindent 2 }}
{{- end -}}

{{- define "alb-oidc.labels" -}}
app.kubernetes.io/name: alb-oidc-filter
app.kubernetes.io/instance: {{ .Release.Name | toJson }}
app.kubernetes.io/managed-by: {{ .Release.Service | toJson }}
{{- end -}}

{{/* The labels of the gateway's pods. */}}
{{- define "alb-oidc.podLabels" -}}
{{- if .Values.gateway.name -}}
{{- dict "gateway.networking.k8s.io/gateway-name" .Values.gateway.name | toJson -}}
{{- else -}}
{{- .Values.gateway.selector | default (dict "istio" "ingressgateway") | toJson -}}
{{- end -}}
{{- end -}}

{{/* The gateway, for extensions and policies. */}}
{{- define "alb-oidc.target" -}}
{{- if .Values.gateway.name -}}
targetRefs:
- group: gateway.networking.k8s.io
  kind: Gateway
  name: {{ .Values.gateway.name | toJson }}
{{- else -}}
selector:
  matchLabels: {{- include "alb-oidc.podLabels" . | fromJson | toYaml | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* The name of a resource for one host: readable where that is a valid name. */}}
{{- define "alb-oidc.nameForHost" -}}
{{- $readable := printf "%s-%s" .name .host -}}
{{- if and (le (len $readable) 63) (regexMatch "^[a-z0-9.-]+$" $readable) -}}
{{- $readable -}}
{{- else -}}
{{- printf "%s-%s" .name (sha256sum .host | trunc 16) -}}
{{- end -}}
{{- end -}}

{{/* Fails unless the host is a DNS name in lower case. */}}
{{- define "alb-oidc.checkHost" -}}
{{- $label := "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?" -}}
{{- if hasSuffix "." .host -}}
{{- fail (printf "%s: found %q. The host must not end with a dot." .field .host) -}}
{{- else if not (regexMatch (printf "^%s(\\.%s)+$" $label $label) .host) -}}
{{- fail (printf "%s: found %q. Expected a host in lower case, such as app.example.com." .field .host) -}}
{{- else if gt (len .host) 253 -}}
{{- fail (printf "%s: found a host of %d bytes. Expected at most 253." .field (len .host)) -}}
{{- else if regexMatch "^[0-9.]+$" .host -}}
{{- fail (printf "%s: found the address %q. Expected a host name." .field .host) -}}
{{- end -}}
{{- end -}}

{{/* The host and port of a URL, and whether a Service of the cluster has this name. */}}
{{- define "alb-oidc.endpoint" -}}
{{- $rest := regexReplaceAll "^https?://" .url "" -}}
{{- if or (eq $rest .url) (not (regexMatch "^[^/:?#@]+(:[0-9]{1,5})?(/[^?#]*)?$" $rest)) -}}
{{- fail (printf "%s: found %q. Expected a URL such as https://keys.example.com/path." .field .url) -}}
{{- end -}}
{{- $authority := regexFind "^[^/]+" $rest | lower -}}
{{- $host := regexFind "^[^:]+" $authority -}}
{{- $isTls := hasPrefix "https://" .url -}}
{{- $port := ternary 443 80 $isTls -}}
{{- if contains ":" $authority -}}
{{- $port = regexFind "[0-9]+$" $authority | int -}}
{{- end -}}
{{- include "alb-oidc.checkHost" (dict "field" .field "host" $host) -}}
{{- $isService := hasSuffix (printf ".svc.%s" .clusterDomain) $host -}}
{{- if not (or $isTls $isService) -}}
{{- fail (printf "%s: found %q. Use https: without TLS, an attacker on the network can replace the keys." .field .url) -}}
{{- end -}}
{{- dict "host" $host "port" $port "isTls" $isTls "isService" $isService | toJson -}}
{{- end -}}

{{/* Where the filter fetches keys: an array of {host, port, isTls, isService}, each once. */}}
{{- define "alb-oidc.endpoints" -}}
{{- $found := list -}}
{{- $config := .Values.pluginConfig -}}
{{- $publicKeys := $config.publicKeys | default dict -}}
{{- $domain := .Values.clusterDomain -}}
{{- if not $publicKeys.cluster -}}
{{- range $position, $loadBalancer := $config.loadBalancers -}}
{{- $field := printf "pluginConfig.loadBalancers[%d].arn" $position -}}
{{- $arn := $loadBalancer.arn | toString -}}
{{- $region := index (splitList ":" $arn) 3 -}}
{{- $url := $publicKeys.endpoint -}}
{{- if $url -}}
{{- $field = "pluginConfig.publicKeys.endpoint" -}}
{{- else if hasPrefix "arn:aws:" $arn -}}
{{- $url = printf "https://public-keys.auth.elb.%s.amazonaws.com" $region -}}
{{- else if hasPrefix "arn:aws-us-gov:" $arn -}}
{{- $url = printf "https://s3-%s.amazonaws.com/aws-elb-public-keys-prod-%s" $region $region -}}
{{- else if hasPrefix "arn:aws-cn:" $arn -}}
{{- fail (printf "%s: AWS documents no key server for China. Set pluginConfig.publicKeys.endpoint. Third parties report https://public-keys.auth.elb.%s.amazonaws.com.cn." $field $region) -}}
{{- else -}}
{{- fail (printf "%s: AWS documents no key server for this partition. Set pluginConfig.publicKeys.endpoint." $field) -}}
{{- end -}}
{{- $found = append $found (include "alb-oidc.endpoint" (dict "field" $field "url" $url "clusterDomain" $domain)) -}}
{{- end -}}
{{- end -}}
{{- $accessTokens := dict "pluginConfig.accessToken" $config.accessToken -}}
{{- range $position, $loadBalancer := $config.loadBalancers -}}
{{- $_ := set $accessTokens (printf "pluginConfig.loadBalancers[%d].accessToken" $position) $loadBalancer.accessToken -}}
{{- end -}}
{{- range $place, $accessToken := $accessTokens -}}
{{- with $accessToken -}}
{{- if not .jwksCluster -}}
{{- $field := printf "%s.%s" $place (ternary "jwksUri" "issuer" (not (empty .jwksUri))) -}}
{{- $url := .jwksUri | default .issuer | default "" -}}
{{- $found = append $found (include "alb-oidc.endpoint" (dict "field" $field "url" $url "clusterDomain" $domain)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
[{{ $found | uniq | join "," }}]
{{- end -}}

{{/* The hosts outside the cluster, each with its ports: {HOST: [PORT, …]}. */}}
{{- define "alb-oidc.keyServers" -}}
{{- $servers := dict -}}
{{- range include "alb-oidc.endpoints" . | fromJsonArray -}}
{{- if not .isService -}}
{{- $_ := set $servers .host (append (get $servers .host | default list) .port) -}}
{{- end -}}
{{- end -}}
{{- toJson $servers -}}
{{- end -}}

{{- define "alb-oidc.egressHost" -}}
{{- with .Values.keyServers.egressGateway -}}
{{- printf "%s.%s.svc.%s" .service .namespace $.Values.clusterDomain -}}
{{- end -}}
{{- end -}}

{{/* Namespaces that see the resources for key servers. */}}
{{- define "alb-oidc.exportTo" -}}
{{- $egress := .Values.keyServers.egressGateway -}}
{{- if and $egress.enabled (ne $egress.namespace .Values.gateway.namespace) -}}
{{- list "." $egress.namespace | toJson -}}
{{- else -}}
{{- list "." | toJson -}}
{{- end -}}
{{- end -}}

{{/* The header that carries the user id. */}}
{{- define "alb-oidc.userIdHeader" -}}
{{- dig "userId" "header" "kubeflow-userid" .Values.pluginConfig | lower -}}
{{- end -}}

{{/* pluginConfig, with what the other values add to it. */}}
{{- define "alb-oidc.pluginConfig" -}}
{{- $config := deepCopy .Values.pluginConfig -}}
{{- /* Without machine clients, too: their route may go later than their other resources. */ -}}
{{- $_ := set $config "reservedHeaders" (append ($config.reservedHeaders | default list) "x-machine-client" | uniq) -}}
{{- if .Values.machineClients.enabled -}}
{{- $rule := dict "match" (dict "hosts" (list .Values.machineClients.host)) "require" "none" -}}
{{- $_ := set $config "rules" (prepend ($config.rules | default list) $rule) -}}
{{- end -}}
{{- $egress := .Values.keyServers.egressGateway -}}
{{- if $egress.enabled -}}
{{- $cluster := printf "outbound|%d|%s|%s" (int $egress.port) .Values.name (include "alb-oidc.egressHost" .) -}}
{{- $_ := set $config "publicKeys" (merge (dict "cluster" $cluster) ($config.publicKeys | default dict)) -}}
{{- if $config.accessToken -}}
{{- $_ := set $config "accessToken" (merge (dict "jwksCluster" $cluster) $config.accessToken) -}}
{{- end -}}
{{- range $config.loadBalancers -}}
{{- if .accessToken -}}
{{- $_ := set . "accessToken" (merge (dict "jwksCluster" $cluster) .accessToken) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}

{{/* Hosts as an AuthorizationPolicy compares them: with a port, with a final dot. */}}
{{- define "alb-oidc.hostForms" -}}
{{- list . (printf "%s:*" .) (printf "%s." .) (printf "%s.:*" .) | toJson -}}
{{- end -}}

{{/* All routes: an array of {name, host, service}. The one of machine clients has clientIds. */}}
{{- define "alb-oidc.routes" -}}
{{- $routes := list -}}
{{- range .Values.routes -}}
{{- $name := include "alb-oidc.nameForHost" (dict "name" $.Values.name "host" .host) -}}
{{- $routes = append $routes (dict "name" $name "host" .host "service" .service) -}}
{{- end -}}
{{- with .Values.machineClients -}}
{{- if .enabled -}}
{{- $name := printf "%s-machine-clients" $.Values.name -}}
{{- $routes = append $routes (dict "name" $name "host" .host "service" .service "clientIds" .clientIds) -}}
{{- end -}}
{{- end -}}
{{- toJson $routes -}}
{{- end -}}

{{/* The Gateways that the routes use, of networking.istio.io. */}}
{{- define "alb-oidc.istioGateways" -}}
{{- .Values.gateway.istioGateways | default (list (printf "%s/%s" .Values.gateway.namespace .Values.name)) | toJson -}}
{{- end -}}

{{/* The module, as a WasmPlugin and a TrafficExtension have it. */}}
{{- define "alb-oidc.wasm" -}}
url: {{ .Values.image.url | toJson }}
{{- with .Values.image.sha256 }}
sha256: {{ . | toJson }}
{{- end }}
{{- with .Values.image.pullSecret }}
imagePullSecret: {{ . | toJson }}
{{- end }}
failStrategy: {{ .Values.failStrategy | toJson }}
{{- with .Values.vmEnv }}
vmConfig:
  env:
  {{- range $name, $value := . }}
  - name: {{ $name | toJson }}
    value: {{ $value | toJson }}
  {{- end }}
{{- end }}
pluginConfig: {{- include "alb-oidc.pluginConfig" . | fromJson | toYaml | nindent 2 }}
{{- end -}}

{{/* Not empty if the load balancer is known: without it, there is no filter yet. */}}
{{- define "alb-oidc.isComplete" -}}
{{- if .Values.pluginConfig.loadBalancers }}true{{ end -}}
{{- end -}}

{{/* The issuer of machine clients' tokens. */}}
{{- define "alb-oidc.machineIssuer" -}}
{{- $first := first .Values.pluginConfig.loadBalancers | default dict -}}
{{- .Values.machineClients.issuer | default $first.issuer | default (include "alb-oidc.albIssuer" .) -}}
{{- end -}}

{{/* The port of the gateway's pods for the load balancer. */}}
{{- define "alb-oidc.targetPort" -}}
{{- .Values.alb.targetPort | default (ternary 80 8080 (ne .Values.gateway.name "")) | int -}}
{{- end -}}

{{/* The issuer of the tokens of `alb`; empty without it. */}}
{{- define "alb-oidc.albIssuer" -}}
{{- with .Values.alb -}}
{{- $arn := splitList ":" .cognito.userPoolArn -}}
{{- if not .enabled -}}
{{- else if .oidc.issuer -}}
{{- .oidc.issuer -}}
{{- else if eq (len $arn) 6 -}}
{{- $domain := ternary "amazonaws.com.cn" "amazonaws.com" (eq (index $arn 1) "aws-cn") -}}
{{- printf "https://cognito-idp.%s.%s/%s" (index $arn 3) $domain (index $arn 5 | trimPrefix "userpool/") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The hosts for browsers, each once. */}}
{{- define "alb-oidc.albHosts" -}}
{{- $hosts := .Values.alb.hosts -}}
{{- range .Values.routes -}}
{{- $hosts = append $hosts .host -}}
{{- end -}}
{{- $hosts | uniq | toJson -}}
{{- end -}}

{{- define "alb-oidc.signOutPath" -}}
{{- dig "logout" "path" "" .Values.pluginConfig -}}
{{- end -}}

{{- define "alb-oidc.sessionCookie" -}}
{{- $names := dig "logout" "sessionCookie" "AWSELBAuthSessionCookie" .Values.pluginConfig -}}
{{- kindIs "slice" $names | ternary $names (list $names) | first -}}
{{- end -}}

{{/* Attributes of the load balancer: {NAME: VALUE}. */}}
{{- define "alb-oidc.albAttributes" -}}
{{- $own := dict "idle_timeout.timeout_seconds" (int .Values.alb.idleTimeoutSeconds | toString) "routing.http.drop_invalid_header_fields.enabled" "true" -}}
{{- merge $own .Values.alb.attributes | toJson -}}
{{- end -}}

{{/* How the load balancer verifies the tokens of machine clients. */}}
{{- define "alb-oidc.jwtValidation" -}}
{{- $issuer := include "alb-oidc.machineIssuer" . -}}
{{- with .Values.machineClients -}}
{{- $config := dict "issuer" $issuer "jwksEndpoint" (.jwksUri | default (printf "%s/.well-known/jwks.json" $issuer)) -}}
{{- /* A claim with several accepted values is left to the gateway. */ -}}
{{- $claims := list -}}
{{- range $claim, $values := merge (dict .claim .clientIds) .requiredClaims -}}
{{- if eq (len $values) 1 -}}
{{- $claims = append $claims (dict "name" $claim "format" "single-string" "values" $values) -}}
{{- end -}}
{{- end -}}
{{- if $claims -}}
{{- $_ := set $config "additionalClaims" $claims -}}
{{- end -}}
{{- toJson $config -}}
{{- end -}}
{{- end -}}

{{/* Annotations of each Ingress: the load balancer and its target group, without authentication. */}}
{{- define "alb-oidc.albAnnotations" -}}
{{- with .Values.alb -}}
{{- if .group.name }}
alb.ingress.kubernetes.io/group.name: {{ .group.name | toJson }}
{{- end }}
alb.ingress.kubernetes.io/scheme: {{ .scheme | toJson }}
{{- if .subnets }}
alb.ingress.kubernetes.io/subnets: {{ .subnets | join "," | toJson }}
{{- end }}
{{- if .securityGroups }}
alb.ingress.kubernetes.io/security-groups: {{ .securityGroups | join "," | toJson }}
{{- end }}
{{- if .inboundCidrs }}
alb.ingress.kubernetes.io/inbound-cidrs: {{ .inboundCidrs | join "," | toJson }}
{{- end }}
alb.ingress.kubernetes.io/listen-ports: '[{"HTTP": 80}, {"HTTPS": 443}]'
alb.ingress.kubernetes.io/ssl-redirect: "443"
{{- if .certificateArn }}
alb.ingress.kubernetes.io/certificate-arn: {{ .certificateArn | toJson }}
{{- end }}
{{- if .sslPolicy }}
alb.ingress.kubernetes.io/ssl-policy: {{ .sslPolicy | toJson }}
{{- end }}
{{- $attributes := list }}
{{- range $name, $value := include "alb-oidc.albAttributes" $ | fromJson }}
{{- $attributes = append $attributes (printf "%s=%s" $name $value) }}
{{- end }}
alb.ingress.kubernetes.io/load-balancer-attributes: {{ $attributes | join "," | toJson }}
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/backend-protocol: HTTP
# The gateway's own port: the filter does not see health checks.
alb.ingress.kubernetes.io/healthcheck-protocol: HTTP
alb.ingress.kubernetes.io/healthcheck-port: "15021"
alb.ingress.kubernetes.io/healthcheck-path: /healthz/ready
{{- end -}}
{{- end -}}
