{{/* What values.schema.json cannot say, each as a sentence. Every template begins with it. */}}
{{- define "alb-oidc.check" -}}
{{- $values := .Values }}

{{- /* YAML takes these characters for the end of a line, in a quoted string, too. */}}
{{- if regexMatch "[\\x{85}\\x{feff}]|\\\\u202[89]" (toJson $values) }}
{{- fail "found a line separator (U+0085, U+2028, U+2029) or U+FEFF in the values. Remove it: it is invisible, and YAML changes it." }}
{{- end }}

{{- /* Placeholders: words in capital letters, as documentation has them. */}}
{{- $config := $values.pluginConfig }}
{{- $filled := dict "image" $values.image "gateway" $values.gateway "machineClients" $values.machineClients "alb" (pick $values.alb "hosts" "certificateArn" "cognito" "oidc") "pluginConfig" (pick $config "loadBalancers" "accessToken" "publicKeys" "logout") }}
{{- range $section, $value := $filled }}
{{- $found := regexFind "(^|[^A-Za-z0-9_-])(ACCOUNT|BUCKET|CLIENT|CLIENT-ID|DIGEST|DOMAIN|GATEWAY|HOST|ID|ISSUER|NAME|POOL|REGION|REGISTRY|TENANT)([^A-Za-z0-9_-]|$)" (toJson $value) }}
{{- if $found }}
{{- fail (printf "%s: found the placeholder %s. Replace it with your own value." $section (regexFind "[A-Z][A-Z-]*" $found)) }}
{{- end }}
{{- end }}

{{- /* The image. Before the load balancer exists, there is no filter and no image. */}}
{{- $image := $values.image }}
{{- if or $image.url (include "alb-oidc.isComplete" .) }}
{{- $url := required "image.url is empty: set it to the filter's image, pinned by its digest (oci://REGISTRY/REPOSITORY@sha256:DIGEST)." $image.url }}
{{- if hasPrefix "oci://" $url }}
{{- if not (regexMatch "^oci://[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9._-]+)?@sha256:[0-9a-f]{64}$" $url) }}
{{- fail (printf "image.url: found %q. Pin the image by its digest: oci://REGISTRY/REPOSITORY@sha256:DIGEST." $url) }}
{{- end }}
{{- else if hasPrefix "https://" $url }}
{{- $_ := required "image.sha256 is empty: an image.url with https:// needs the SHA-256 of the module." $image.sha256 }}
{{- else if not (hasPrefix "file:///" $url) }}
{{- fail (printf "image.url: found %q. Expected a URL that begins with oci://, https:// or file:///." $url) }}
{{- end }}
{{- end }}

{{- /* The gateway. */}}
{{- if and $values.gateway.name $values.gateway.selector }}
{{- fail "gateway.name cannot be combined with gateway.selector: name selects a Gateway of the Gateway API, selector the pods of another gateway." }}
{{- end }}
{{- if and $values.gateway.name $values.gateway.istioGateways }}
{{- fail "gateway.istioGateways cannot be combined with gateway.name: a Gateway of the Gateway API has HTTPRoutes, which name it." }}
{{- end }}
{{- if and $values.gateway.allowPolicy (not (or $values.gateway.name $values.gateway.selector)) }}
{{- fail "gateway.allowPolicy needs gateway.name or gateway.selector: Kubeflow has such a policy for its own gateway." }}
{{- end }}

{{- /* The load balancers. */}}
{{- if not (or $config.loadBalancers $values.alb.enabled) }}
{{- fail "pluginConfig.loadBalancers is empty: add arn, issuer and clientId of the load balancer in front of the gateway." }}
{{- end }}
{{- range $position, $loadBalancer := $config.loadBalancers }}
{{- $field := printf "pluginConfig.loadBalancers[%d]" $position }}
{{- if not (regexMatch "^arn:aws[a-z-]*:elasticloadbalancing:[a-z0-9-]{1,32}:[0-9]{12}:loadbalancer/app/[A-Za-z0-9-]{1,32}/[0-9a-f]{16}$" (toString .arn)) }}
{{- fail (printf "%s.arn: found %q. Expected the ARN of an Application Load Balancer: arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID." $field (toString .arn)) }}
{{- end }}
{{- $issuer := toString .issuer }}
{{- if and (hasPrefix "https://cognito-idp" $issuer) (not (regexMatch "^https://cognito-idp(-fips)?\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/[a-z0-9-]+_[A-Za-z0-9]+$" $issuer)) }}
{{- fail (printf "%s.issuer: found %q. Expected https://cognito-idp.REGION.amazonaws.com/POOL, without a slash at the end." $field $issuer) }}
{{- end }}
{{- end }}

{{- if and (eq ($config.mode | default "enforce") "report") (not $values.acceptAnonymous) }}
{{- fail "pluginConfig.mode: report lets every request pass, without a user. Set acceptAnonymous: true to accept that, or remove mode." }}
{{- end }}

{{- /* Key servers. */}}
{{- $egress := $values.keyServers.egressGateway }}
{{- if $egress.enabled }}
{{- if or (dig "publicKeys" "cluster" "" $config) (dig "accessToken" "jwksCluster" "" $config) }}
{{- fail "keyServers.egressGateway cannot be combined with publicKeys.cluster or accessToken.jwksCluster: the chart sets them." }}
{{- end }}
{{- range $config.loadBalancers }}
{{- if dig "accessToken" "jwksCluster" "" . }}
{{- fail "keyServers.egressGateway cannot be combined with loadBalancers[].accessToken.jwksCluster: the chart sets it." }}
{{- end }}
{{- end }}
{{- range include "alb-oidc.endpoints" . | fromJsonArray }}
{{- if .isService }}
{{- fail (printf "keyServers.egressGateway cannot be combined with a key server in the cluster (found %s)." .host) }}
{{- end }}
{{- end }}
{{- range $host, $ports := include "alb-oidc.keyServers" . | fromJson }}
{{- if gt (len $ports) 1 }}
{{- fail (printf "keyServers.egressGateway cannot be combined with two ports of one key server (found %s)." $host) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Routes. */}}
{{- $hosts := list }}
{{- range $position, $route := $values.routes }}
{{- $host := .host | trimPrefix "*." }}
{{- include "alb-oidc.checkHost" (dict "field" (printf "routes[%d].host" $position) "host" $host) }}
{{- if has .host $hosts }}
{{- fail (printf "routes[%d].host: found %q again. Expected each host once." $position .host) }}
{{- end }}
{{- $hosts = append $hosts .host }}
{{- end }}

{{- /* Machine clients. */}}
{{- with $values.machineClients }}
{{- if .enabled }}
{{- $host := required "machineClients.host is empty: set it to the host that the load balancer forwards without authentication." .host }}
{{- include "alb-oidc.checkHost" (dict "field" "machineClients.host" "host" $host) }}
{{- if has $host $hosts }}
{{- fail (printf "machineClients.host: found %q, which is a host of routes. The filter asks for no token there. Use another host." $host) }}
{{- end }}
{{- if not .clientIds }}
{{- fail "machineClients.clientIds is empty: list the ids of the clients that may pass." }}
{{- end }}
{{- $issuer := required "machineClients.issuer is empty, and the first load balancer has none: set the issuer of the access tokens." (include "alb-oidc.machineIssuer" $) }}
{{- if not (hasPrefix "https://" (.jwksUri | default $issuer)) }}
{{- fail (printf "machineClients.jwksUri: found %q. Expected a URL that begins with https://." (.jwksUri | default $issuer)) }}
{{- end }}
{{- end }}
{{- end }}

{{- include "alb-oidc.checkAlb" . }}

{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.albSubnets) }}
{{- fail "networkPolicy.albSubnets is empty: list the CIDR blocks of the load balancer's subnets." }}
{{- end }}
{{- end -}}

{{/* The load balancer of the chart. */}}
{{- define "alb-oidc.checkAlb" -}}
{{- $config := .Values.pluginConfig }}
{{- $machineClients := .Values.machineClients }}
{{- $alb := .Values.alb }}
{{- if $alb.enabled }}
{{- if eq $alb.api "gateway" }}
{{- if $alb.autoMode }}
{{- fail "alb.autoMode cannot be combined with alb.api: gateway. Use alb.api: ingress." }}
{{- end }}
{{- if $alb.group.name }}
{{- fail "alb.group cannot be combined with alb.api: gateway: the Gateway admits routes of its own namespace only." }}
{{- end }}
{{- end }}

{{- $hosts := include "alb-oidc.albHosts" . | fromJsonArray }}
{{- if not $hosts }}
{{- fail "alb.hosts is empty: list the hosts that browsers use." }}
{{- end }}
{{- range $position, $host := $alb.hosts }}
{{- include "alb-oidc.checkHost" (dict "field" (printf "alb.hosts[%d]" $position) "host" (trimPrefix "*." $host)) }}
{{- end }}
{{- if and $machineClients.enabled (has $machineClients.host $hosts) }}
{{- fail (printf "machineClients.host: found %q, which is in alb.hosts. The load balancer forwards it without authentication: use another host." $machineClients.host) }}
{{- end }}

{{- /* The identity provider. */}}
{{- $provider := "alb.cognito" }}
{{- if and $alb.cognito.userPoolArn $alb.oidc.issuer }}
{{- fail "alb.cognito cannot be combined with alb.oidc: a listener rule has one identity provider." }}
{{- else if $alb.cognito.userPoolArn }}
{{- if not (regexMatch "^arn:aws[a-z-]*:cognito-idp:[a-z0-9-]+:[0-9]{12}:userpool/[a-z0-9-]+_[A-Za-z0-9]+$" $alb.cognito.userPoolArn) }}
{{- fail (printf "alb.cognito.userPoolArn: found %q. Expected arn:aws:cognito-idp:REGION:ACCOUNT:userpool/POOL." $alb.cognito.userPoolArn) }}
{{- end }}
{{- $_ := required "alb.cognito.clientId is empty: set the id of the load balancer's app client." $alb.cognito.clientId }}
{{- $_ := required "alb.cognito.domain is empty: set the prefix of the user pool's sign-in domain." $alb.cognito.domain }}
{{- else if $alb.oidc.issuer }}
{{- $provider = "alb.oidc" }}
{{- range list "issuer" "authorizationEndpoint" "tokenEndpoint" "userInfoEndpoint" }}
{{- $url := get $alb.oidc . }}
{{- if not (regexMatch "^https://[^/?# ]+" $url) }}
{{- fail (printf "alb.oidc.%s: found %q. Expected a URL that begins with https://." . $url) }}
{{- end }}
{{- end }}
{{- else }}
{{- fail "alb.cognito.userPoolArn and alb.oidc.issuer are empty: set one of them. Without an identity provider, the load balancer cannot sign users in." }}
{{- end }}

{{- /* What pluginConfig says, too. */}}
{{- $issuer := include "alb-oidc.albIssuer" . }}
{{- if $config.loadBalancers }}
{{- $agrees := false }}
{{- range $config.loadBalancers }}
{{- $isClient := or (eq $provider "alb.oidc") (has .clientId (list nil $alb.cognito.clientId)) }}
{{- if and $isClient (has .issuer (list nil $issuer)) }}
{{- $agrees = true }}
{{- end }}
{{- end }}
{{- if not $agrees }}
{{- $client := ternary (printf " and clientId %s" $alb.cognito.clientId) "" (eq $provider "alb.cognito") }}
{{- fail (printf "%s: no entry of pluginConfig.loadBalancers has issuer %s%s. The filter would deny every token of this load balancer." $provider $issuer $client) }}
{{- end }}
{{- end }}
{{- $signOutClient := regexFind "[?&]client_id=[^&]*" (dig "logout" "redirectTo" "" $config) | trimPrefix "?" | trimPrefix "&" | trimPrefix "client_id=" }}
{{- if and $signOutClient (eq $provider "alb.cognito") (ne $signOutClient $alb.cognito.clientId) }}
{{- fail (printf "pluginConfig.logout.redirectTo: found client_id=%s. Expected alb.cognito.clientId, %s." $signOutClient $alb.cognito.clientId) }}
{{- end }}

{{- $scopes := splitList " " $alb.scope }}
{{- $needed := list "openid" }}
{{- if has "email" (dig "userId" "claims" (list "email") $config) }}
{{- $needed = append $needed "email" }}
{{- end }}
{{- range $needed }}
{{- if not (has . $scopes) }}
{{- fail (printf "alb.scope: found %q. Expected %s in it: the token has no user otherwise." $alb.scope .) }}
{{- end }}
{{- end }}

{{- if and $alb.autoMode $alb.group.name }}
{{- fail "alb.group cannot be combined with alb.autoMode: EKS Auto Mode ignores the annotation group.name." }}
{{- end }}
{{- if and $alb.securityGroups $alb.inboundCidrs }}
{{- fail "alb.securityGroups cannot be combined with alb.inboundCidrs: write the blocks into the rules of your security groups." }}
{{- end }}
{{- if and $alb.jwtValidation (not $machineClients.enabled) }}
{{- fail "alb.jwtValidation needs machineClients.enabled: it verifies their tokens." }}
{{- end }}
{{- if and $alb.jwtValidation (eq $alb.api "ingress") (not $alb.group.name) }}
{{- fail "alb.jwtValidation needs alb.group.name or alb.api: gateway: one Ingress cannot both sign users in and verify tokens." }}
{{- end }}
{{- end }}
{{- end -}}
